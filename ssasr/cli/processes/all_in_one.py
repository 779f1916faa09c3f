"""The all-in-one process: the public side and engines behind it, without a network between."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from attrs import frozen

from ssasr.cli.processes.public_side import PublicConfig, serve_public
from ssasr.cli.processes.recognition import RecognitionConfig
from ssasr.engine.host import EngineHost
from ssasr.errors import EngineUnavailable
from ssasr.protocol.recognition import Open
from ssasr.routing.engine_stream import EngineStream
from ssasr.routing.models import MODEL_VERSIONS
from ssasr.runtime.garbage import YOUNG_IN_STEPS, freeze_loaded_objects
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import child_span


@frozen
class ServeConfig:
    """Everything ``ssasr serve`` needs."""

    public: PublicConfig
    recognition: RecognitionConfig


@frozen(eq=False)
class LocalEngines:
    """Engines in this process."""

    hosts: Mapping[str, EngineHost]

    @asynccontextmanager
    async def open_stream(self, model_version: str, opening: Open) -> AsyncIterator[EngineStream]:
        """Raises EngineBusy, EngineUnavailable."""
        host = self.hosts.get(model_version)
        if host is None:
            raise EngineUnavailable(f"no engine serves {model_version}")
        with child_span("engine stream", attempt=1) as span:
            async with host.open_stream(opening) as stream:
                span.note(model=stream.opened.model, engine=stream.opened.engine)
                yield stream

    def answers(self, model_version: str) -> bool:
        host = self.hosts.get(model_version)
        return host is not None and host.ready.is_set()

    def is_ready(self) -> bool:
        return all(host.ready.is_set() for host in self.hosts.values())


def build_hosts(config: ServeConfig, metrics: Metrics) -> dict[str, EngineHost]:
    """Loads the weights. Raises WeightsError."""
    hosts = {}
    recognition = config.recognition
    diarizer = recognition.load_diarizer()
    for kind in config.public.engines:
        recognizer = recognition.load(kind.value)
        hosts[MODEL_VERSIONS[kind]] = recognition.host(kind.value, recognizer, diarizer, metrics)
    return hosts


async def serve(config: ServeConfig) -> None:
    """Gateway and engines in one process, until SIGTERM or SIGINT. Raises StartRefused, and
    whatever ends a model thread."""
    metrics = Metrics()
    hosts = build_hosts(config, metrics)
    freeze_loaded_objects()
    services = tuple(host.run for host in hosts.values())
    await serve_public(config.public, LocalEngines(hosts), metrics, services, YOUNG_IN_STEPS)
