"""Builds the processes: the all-in-one server, the gateway, the engine. Called by ``cli`` only."""

import secrets
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio
from attrs import frozen

from ssasr.access import Access, parse_keys
from ssasr.demo_page import page_routes
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import ModelThread
from ssasr.engine.recognizer import Factory, RecognizerSettings
from ssasr.errors import EngineUnavailable, StartRefused
from ssasr.gateway import Gateway, GatewayLimits
from ssasr.http import HttpApp, gateway_routes
from ssasr.observability import Metrics, get_logger
from ssasr.protocol.recognition import Open
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.engine_stream import EngineStream
from ssasr.routing.models import MODEL_VERSIONS, Offer
from ssasr.running import watch_signals
from ssasr.tokens import TokenMint

log = get_logger(__name__)


@frozen
class ServeConfig:
    """Everything ``ssasr serve`` needs; ``gateway`` and ``engine`` take their parts of it."""

    host: str
    port: int
    engines: tuple[EngineKind, ...]
    engine_kind: str
    device: str
    threads: int | None
    max_streams: int | None
    limits: GatewayLimits
    keys: str
    """As ``access.parse_keys`` reads them."""
    token_secret: bytes | None = None
    """None: one of this process's own, whose tokens no other gateway accepts."""
    demo_page: bool = True
    tls_certificate: str | None = None
    tls_key: str | None = None


@frozen(eq=False)
class LocalEngines:
    """Engines in this process."""

    hosts: Mapping[str, EngineHost]

    def open_stream(
        self, model_version: str, opening: Open
    ) -> AbstractAsyncContextManager[EngineStream]:
        host = self.hosts.get(model_version)
        if host is None:
            raise EngineUnavailable(f"no engine serves {model_version}")
        return host.open_stream(opening)

    def is_ready(self) -> bool:
        return all(host.ready.is_set() for host in self.hosts.values())


def recognizer_factory(engine_kind: str, model: str) -> Factory:
    """Imports the recogniser's module only now: torch takes seconds."""
    if engine_kind == "scripted":
        from ssasr.engine import scripted

        return scripted.create
    if model.startswith("nemotron") or "fastconformer" in model:
        from ssasr.engine.fastconformer import recognizer as fastconformer

        return fastconformer.create
    from ssasr.engine.whisper import recognizer as whisper

    return whisper.create


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Raises StartRefused."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise StartRefused(f"cannot use TLS certificate {certificate}: {error}") from error
    return context


def build_hosts(config: ServeConfig, metrics: Metrics) -> dict[str, EngineHost]:
    """Loads the weights. Raises WeightsError."""
    hosts = {}
    for kind in config.engines:
        settings = RecognizerSettings(kind.value, config.device, config.max_streams, config.threads)
        recognizer = recognizer_factory(config.engine_kind, kind.value)(settings)
        hosts[MODEL_VERSIONS[kind]] = EngineHost(
            recognizer,
            ModelThread(f"model-{kind.value}"),
            metrics,
            name=kind.value,
            max_streams=config.max_streams,
        )
    return hosts


async def serve(config: ServeConfig) -> None:
    """Gateway and engines in one process, until SIGTERM or SIGINT. Raises StartRefused, and
    whatever ends a model thread."""
    tls = tls_context(config.tls_certificate, config.tls_key)
    metrics = Metrics()
    engines = LocalEngines(build_hosts(config, metrics))
    access = Access(
        parse_keys(config.keys), TokenMint(config.token_secret or secrets.token_bytes(32))
    )
    gateway = Gateway(engines, Offer(config.engines), access, metrics, config.limits)
    pages = page_routes(config.engines) if config.demo_page else {}
    app = HttpApp(pages | gateway_routes(gateway.is_ready, metrics, access))
    async with trio.open_nursery() as process:
        await process.start(watch_signals, gateway.draining.set)
        run = partial(gateway.run, app, config.host, config.port, tls)
        async with trio.open_nursery() as serving:
            port = await serving.start(run)
            log.info("listening", host=config.host, port=port)
            for host in engines.hosts.values():
                process.start_soon(host.run)
        process.cancel_scope.cancel()
