"""The all-in-one process: the public side and engines behind it, without a network between."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from attrs import frozen

from ssasr.cli.processes.public_side import PublicConfig, serve_public
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import ModelThread
from ssasr.engine.recognizer import Factory, RecognizerSettings
from ssasr.engine.speakers.windows import Diarizer
from ssasr.errors import EngineUnavailable
from ssasr.models.catalogue import architecture
from ssasr.protocol.recognition import Open
from ssasr.routing.engine_stream import EngineStream
from ssasr.routing.models import MODEL_VERSIONS
from ssasr.runtime.garbage import YOUNG_IN_STEPS, spare_what_is_loaded
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import child_span


@frozen
class ServeConfig:
    """Everything ``ssasr serve`` needs."""

    public: PublicConfig
    engine_kind: str
    device: str
    threads: int | None
    max_streams: int | None
    chunk_ms: int | None
    speakers: bool = True


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


def recognizer_factory(engine_kind: str, model: str) -> Factory:
    """Imports the recogniser's module only now: torch takes seconds. Raises WeightsError for a
    model that is neither in the catalogue nor a path."""
    if engine_kind == "scripted":
        from ssasr.engine import scripted

        return scripted.create
    if architecture(model) == "fastconformer":
        from ssasr.engine.fastconformer import recognizer as fastconformer

        return fastconformer.create
    from ssasr.engine.whisper import recognizer as whisper

    return whisper.create


def make_diarizer(engine_kind: str, device: str, *, wanted: bool) -> Diarizer | None:
    """What tells speakers apart, its weights loaded; None if nobody wants it. Raises
    WeightsError."""
    if not wanted:
        return None
    if engine_kind == "scripted":
        from ssasr.engine.speakers.scripted import ScriptedDiarizer

        return ScriptedDiarizer()
    from ssasr.engine.speakers.diarizer import VoiceDiarizer

    return VoiceDiarizer.load(device)


def build_hosts(config: ServeConfig, metrics: Metrics) -> dict[str, EngineHost]:
    """Loads the weights. Raises WeightsError."""
    hosts = {}
    diarizer = make_diarizer(config.engine_kind, config.device, wanted=config.speakers)
    for kind in config.public.engines:
        settings = RecognizerSettings(
            kind.value, config.device, config.max_streams, config.threads, config.chunk_ms
        )
        recognizer = recognizer_factory(config.engine_kind, kind.value)(settings)
        hosts[MODEL_VERSIONS[kind]] = EngineHost(
            recognizer,
            ModelThread(f"model-{kind.value}"),
            metrics,
            name=kind.value,
            max_streams=config.max_streams,
            diarizer=diarizer,
        )
    return hosts


async def serve(config: ServeConfig) -> None:
    """Gateway and engines in one process, until SIGTERM or SIGINT. Raises StartRefused, and
    whatever ends a model thread."""
    metrics = Metrics()
    hosts = build_hosts(config, metrics)
    spare_what_is_loaded()
    services = tuple(host.run for host in hosts.values())
    await serve_public(config.public, LocalEngines(hosts), metrics, services, YOUNG_IN_STEPS)
