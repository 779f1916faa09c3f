"""The public side that ``serve`` and ``gateway`` have in common, built from its configuration."""

import secrets
from functools import partial

import trio
from attrs import field, frozen

from ssasr.access import Access, parse_keys
from ssasr.demo_page import page_routes
from ssasr.gateway import Gateway, GatewayLimits
from ssasr.http import HttpApp, gateway_routes
from ssasr.observability import Metrics, get_logger
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.engine_stream import Engines
from ssasr.routing.models import Offer
from ssasr.running import Service, tls_context, watch_signals
from ssasr.tokens import TokenMint

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


async def serve_front(
    config: FrontConfig, engines: Engines, metrics: Metrics, services: tuple[Service, ...]
) -> None:
    """Serve until SIGTERM or SIGINT has drained it. ``services`` keep the engines, or the way to
    them, alive meanwhile; what one of them raises ends everything. Raises StartRefused."""
    tls = tls_context(config.tls_certificate, config.tls_key)
    mint = TokenMint(config.token_secret or secrets.token_bytes(32))
    access = Access(parse_keys(config.keys), mint)
    gateway = Gateway(engines, Offer(config.engines), access, metrics, config.limits)
    pages = page_routes(config.engines) if config.demo_page else {}
    app = HttpApp(pages | gateway_routes(gateway.is_ready, metrics, access))
    async with trio.open_nursery() as process:
        await process.start(watch_signals, gateway.draining.set)
        async with trio.open_nursery() as serving:
            port = await serving.start(partial(gateway.run, app, config.host, config.port, tls))
            log.info("listening", host=config.host, port=port)
            for service in services:
                process.start_soon(service)
        process.cancel_scope.cancel()
