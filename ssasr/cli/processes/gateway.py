"""The gateway process. Imports nothing of the engine: it must start without torch."""

import secrets
from collections.abc import Callable
from functools import partial

from attrs import evolve, field, frozen

from ssasr.cli.processes.public_side import PublicConfig, serve_public
from ssasr.gateway.auth.access import parse_keys
from ssasr.gateway.workers.supervisor import Supervisor, Worker
from ssasr.net.listener import hold_port, port_of
from ssasr.routing.engine_client import Address, EngineClient
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.models import MODEL_VERSIONS
from ssasr.runtime.process import run, tls_context
from ssasr.telemetry.metrics import Metrics, Side


@frozen
class GatewayConfig:
    """``required``: all engines of ``public`` must be there for the gateway to be ready."""

    public: PublicConfig
    address: Address
    required: bool
    secret: str | None = field(default=None, repr=False)
    """What the engines ask for."""


def serve_workers(config: GatewayConfig, count: int, status_of: Callable[..., int]) -> int:
    """``count`` processes behind one port; the exit status. ``status_of``: runs a function and
    makes an exit status of how it ended. Raises StartRefused."""
    public = config.public
    tls_context(public.tls_certificate, public.tls_key)
    parse_keys(public.keys)
    held = hold_port(public.host, public.port)
    port = port_of(held[0])
    secret = public.token_secret or secrets.token_bytes(32)

    def work(worker: Worker) -> int:
        mine = evolve(public, port=port, token_secret=secret, worker=worker)
        return status_of(lambda: run(partial(serve_gateway, evolve(config, public=mine))))

    status = Supervisor(count, work).run()
    for each in held:
        each.close()
    return status


async def serve_gateway(config: GatewayConfig) -> None:
    """Until SIGTERM or SIGINT. Raises StartRefused."""
    versions = [MODEL_VERSIONS[kind] for kind in config.public.engines]
    client = EngineClient(config.address, versions, config.required, config.secret)
    metrics = Metrics(frozenset({Side.GATEWAY}))
    engines = ResilientEngines(client, metrics)
    await serve_public(config.public, engines, metrics, (client.run, engines.bursts.run))
