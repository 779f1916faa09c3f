"""The public side that ``serve`` and ``gateway`` have in common, built from its configuration."""

import secrets
import ssl
from functools import partial
from pathlib import Path

import trio
from attrs import field, frozen

from ssasr import __version__
from ssasr.access import Access, parse_keys
from ssasr.demo_page import page_routes
from ssasr.gateway import Gateway, GatewayLimits
from ssasr.http import Handler, HttpApp, Request, Response, gateway_routes
from ssasr.licence import Licence
from ssasr.observability import Metrics, get_logger
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.engine_stream import Engines
from ssasr.routing.models import Offer
from ssasr.running import Service, tls_context, watch_signals
from ssasr.tokens import TokenMint
from ssasr.tracing import Destination, tracing
from ssasr.usage import UsageLog
from ssasr.usage_push import Destination as PushDestination
from ssasr.usage_push import UsagePush

log = get_logger(__name__)


@frozen
class FrontConfig:
    host: str
    port: int
    engines: tuple[EngineKind, ...]
    """The kinds that sessions may ask for."""
    limits: GatewayLimits
    keys: str = field(repr=False)
    """As ``access.parse_keys`` reads them."""
    token_secret: bytes | None = field(default=None, repr=False)
    """None: one of this process's own, whose tokens no other gateway accepts."""
    demo_page: bool = True
    tls_certificate: str | None = None
    tls_key: str | None = None
    usage_dir: Path | None = None
    """None: no usage records."""
    usage_destination: PushDestination | None = None
    """None: they stay where they are."""
    licence: Licence | None = None
    traces: Destination | None = None
    """None: nowhere."""


def usage_services(config: FrontConfig) -> tuple[UsageLog | None, tuple[Service, ...]]:
    """Where records are kept, if anywhere, and what writes and sends them. Raises StartRefused."""
    if config.usage_dir is None:
        return None, ()
    usage = UsageLog.open(config.usage_dir)
    if config.usage_destination is None:
        return usage, (usage.run,)
    return usage, (usage.run, UsagePush(usage, config.usage_destination).run)


def status_route(gateway: Gateway) -> Handler:
    """``GET /v1/status``: for people and scripts; nothing of it is secret or of a client."""

    def status(_: Request) -> Response:
        now = gateway.wall_clock()
        numbers = gateway.statistics()
        licence = gateway.licence
        return Response.of(
            200,
            {
                "version": __version__,
                "ready": gateway.is_ready(),
                "draining": numbers.draining,
                "sessions": numbers.sessions,
                "sessions_limit": numbers.limit,
                "licence": {"state": "none"} if licence is None else licence.state(now),
            },
        )

    return status


async def serve_front(
    config: FrontConfig, engines: Engines, metrics: Metrics, services: tuple[Service, ...]
) -> None:
    """Serve until SIGTERM or SIGINT has drained it. ``services`` keep the engines, or the way to
    them, alive meanwhile; what one of them raises ends everything. Raises StartRefused."""
    tls = tls_context(config.tls_certificate, config.tls_key)
    mint = TokenMint(config.token_secret or secrets.token_bytes(32))
    access = Access(parse_keys(config.keys), mint)
    usage, keeping = usage_services(config)
    gateway = Gateway(
        engines, Offer(config.engines), access, metrics, config.limits, licence=config.licence
    )  # fmt: skip
    if usage is not None:
        gateway.on_end = usage.record
    pages = page_routes(config.engines) if config.demo_page else {}
    routes = gateway_routes(gateway.is_ready, metrics, access)
    app = HttpApp(pages | routes | {"/v1/status": status_route(gateway)})
    async with tracing(config.traces, "ssasr-gateway") as gateway.tracer:
        await _serve(config, gateway, app, tls, (*keeping, *services))


async def _serve(
    config: FrontConfig,
    gateway: Gateway,
    app: HttpApp,
    tls: ssl.SSLContext | None,
    services: tuple[Service, ...],
) -> None:
    async with trio.open_nursery() as process:
        await process.start(watch_signals, gateway.draining.set)
        async with trio.open_nursery() as serving:
            port = await serving.start(partial(gateway.run, app, config.host, config.port, tls))
            log.info("listening", host=config.host, port=port)
            for service in services:
                process.start_soon(service)
        process.cancel_scope.cancel()
