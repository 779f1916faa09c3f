"""Builds the engine process."""

import time
from functools import partial

import trio
from attrs import field, frozen

from ssasr.cli.processes.metrics_port import serve_metrics
from ssasr.cli.processes.recognition import RecognitionConfig
from ssasr.engine.recognizer import Recognizer
from ssasr.engine.server import EngineServer
from ssasr.engine.speakers.windows import Diarizer
from ssasr.gateway.http import engine_routes, http_app
from ssasr.routing.models import MODEL_VERSIONS
from ssasr.runtime.garbage import collect_rarely
from ssasr.runtime.process import watch_signals
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics, Side
from ssasr.telemetry.tracing import Destination, tracing

log = get_logger(__name__)


@frozen
class EngineConfig:
    """``version``: what gateways ask for, or None: by ``model``."""

    host: str
    port: int
    model: str
    version: str | None
    recognition: RecognitionConfig
    drain_seconds: float
    traces: Destination | None = None
    secret: str | None = field(default=None, repr=False)
    """What gateways must know."""
    metrics_port: int | None = None
    """None: metrics are on ``port``."""

    @property
    def model_version(self) -> str | None:
        """None: whatever is asked for."""
        if self.version is not None:
            return self.version
        versions = {kind.value: version for kind, version in MODEL_VERSIONS.items()}
        return versions.get(self.model)


async def serve_engine(config: EngineConfig) -> None:
    """Until SIGTERM or SIGINT. Raises StartRefused, and whatever ends the model thread."""
    metrics = Metrics(frozenset({Side.ENGINE}))
    server = EngineServer(metrics, config.model_version, config.drain_seconds, secret=config.secret)
    async with tracing(config.traces, "ssasr-engine") as server.tracer:
        await _serve(config, server, metrics)


async def _serve(config: EngineConfig, server: EngineServer, metrics: Metrics) -> None:
    metrics.ready.labels(config.model_version or config.model).set_function(server.is_ready)
    metrics.draining.set_function(server.draining.is_set)
    routes = engine_routes(server.is_ready, metrics, config.model_version)
    shown = routes["/metrics"] if config.metrics_port is None else routes.pop("/metrics")
    app = http_app(routes)
    async with trio.open_nursery() as process:
        await process.start(watch_signals, server.draining.set)
        if config.metrics_port is not None:
            await process.start(serve_metrics, shown, config.host, config.metrics_port)
        async with trio.open_nursery() as serving:
            port = await serving.start(partial(server.run, app, config.host, config.port))
            log.info("listening", host=config.host, port=port, model=config.model)
            process.start_soon(_run_model, config, server, metrics)
            process.start_soon(server.bursts.run)
        process.cancel_scope.cancel()


async def _run_model(config: EngineConfig, server: EngineServer, metrics: Metrics) -> None:
    """Load the weights while the port already answers, then serve. Raises WeightsError."""
    started = time.monotonic()
    recognizer, diarizer = await trio.to_thread.run_sync(_load, config, abandon_on_cancel=True)
    collect_rarely()
    log.info("loaded", model=recognizer.name, seconds=round(time.monotonic() - started, 2))
    server.host = config.recognition.host(config.model, recognizer, diarizer, metrics)
    await server.host.run()


def _load(config: EngineConfig) -> tuple[Recognizer, Diarizer | None]:
    diarizer = config.recognition.load_diarizer()
    return config.recognition.load(config.model), diarizer
