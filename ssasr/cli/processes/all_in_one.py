"""The all-in-one process: the public side and engines behind it, without a network between."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from attrs import frozen

from ssasr.cli.processes.public_side import PublicConfig, serve_public
from ssasr.cli.processes.recognition import RecognitionConfig
from ssasr.engine.host import EngineHost
from ssasr.errors import EngineUnavailable
from ssasr.protocol.recognition import Open
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.engine_stream import EngineStream
from ssasr.routing.models import MODEL_VERSIONS
from ssasr.runtime.garbage import YOUNG_IN_STEPS, freeze_loaded_objects
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import child_span


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


def build_hosts(
    kinds: Sequence[EngineKind], recognition: RecognitionConfig, metrics: Metrics
) -> dict[str, EngineHost]:
    """By model version, with their weights loaded. Raises WeightsError."""
    hosts = {}
    diarizer = recognition.load_diarizer()
    for kind in kinds:
        recognizer = recognition.load(kind.value)
        hosts[MODEL_VERSIONS[kind]] = recognition.host(kind.value, recognizer, diarizer, metrics)
    return hosts


async def serve(public: PublicConfig, recognition: RecognitionConfig) -> None:
    """Gateway and engines in one process, until SIGTERM or SIGINT. Raises StartRefused, and
    whatever ends a model thread."""
    metrics = Metrics()
    hosts = build_hosts(public.engines, recognition, metrics)
    freeze_loaded_objects()
    services = tuple(host.run for host in hosts.values())
    await serve_public(public, LocalEngines(hosts), metrics, services, YOUNG_IN_STEPS)
