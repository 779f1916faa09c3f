"""Builds the gateway process. Imports nothing of the engine: it must start without torch."""

from functools import partial

import trio
from attrs import frozen

from ssasr.admission import Access
from ssasr.gateway import Gateway, GatewayLimits
from ssasr.http import HttpApp, gateway_routes
from ssasr.observability import Metrics, get_logger
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.engine_client import Address, EngineClient
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.models import MODEL_VERSIONS, Offer
from ssasr.running import tls_context, watch_signals

log = get_logger(__name__)


@frozen
class GatewayConfig:
    """``required``: all of ``engines`` must be there for the gateway to be ready."""

    host: str
    port: int
    address: Address
    engines: tuple[EngineKind, ...]
    required: bool
    limits: GatewayLimits
    keys: tuple[str, ...]
    tls_certificate: str | None = None
    tls_key: str | None = None


async def serve_gateway(config: GatewayConfig) -> None:
    """Until SIGTERM or SIGINT. Raises StartRefused."""
    tls = tls_context(config.tls_certificate, config.tls_key)
    metrics = Metrics()
    versions = [MODEL_VERSIONS[kind] for kind in config.engines]
    client = EngineClient(config.address, versions, config.required)
    engines = ResilientEngines(client, metrics)
    gateway = Gateway(engines, Offer(config.engines), Access(config.keys), metrics, config.limits)
    app = HttpApp(gateway_routes(gateway.is_ready, metrics))
    async with trio.open_nursery() as process:
        await process.start(watch_signals, gateway.draining.set)
        process.start_soon(client.run)
        async with trio.open_nursery() as serving:
            port = await serving.start(
                partial(gateway.run, app, config.host, config.port, tls)
            )  # fmt: skip
            log.info("listening", host=config.host, port=port, engines=config.address.netloc)
        process.cancel_scope.cancel()
