"""What ``serve`` and ``engine`` have in common: one model's recogniser and its host."""

from attrs import frozen

from ssasr.engine.device_memory import reserved_bytes
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import ModelThread
from ssasr.engine.recognizer import Factory, Recognizer, RecognizerSettings
from ssasr.engine.speakers.windows import Diarizer
from ssasr.models.catalogue import architecture
from ssasr.telemetry.gpu import gpu_collector
from ssasr.telemetry.metrics import Metrics


@frozen
class RecognitionConfig:
    """How models are run."""

    engine_kind: str
    device: str
    threads: int | None
    max_streams: int | None
    chunk_ms: int | None
    speakers: bool = True
    precision: str = "auto"

    def load(self, model: str) -> Recognizer:
        """With its weights. Raises WeightsError."""
        settings = RecognizerSettings(
            model, self.device, self.max_streams, self.threads, self.chunk_ms, self.precision
        )
        return recognizer_factory(self.engine_kind, model)(settings)

    def load_diarizer(self) -> Diarizer | None:
        """The diarizer with its weights loaded; None if it is switched off. Raises
        WeightsError."""
        if not self.speakers:
            return None
        if self.engine_kind == "scripted":
            from ssasr.engine.speakers.scripted import ScriptedDiarizer

            return ScriptedDiarizer()
        from ssasr.engine.speakers.diarizer import VoiceDiarizer

        return VoiceDiarizer.load(self.device)

    def host(
        self, name: str, recognizer: Recognizer, diarizer: Diarizer | None, metrics: Metrics
    ) -> EngineHost:
        """Runs the recogniser, in threads of its own."""
        if self.engine_kind != "scripted":
            self._watch_gpu(name, metrics)
        return EngineHost(
            recognizer,
            ModelThread(f"model-{name}", recognizer.steps_at_once),
            metrics,
            name=name,
            max_streams=self.max_streams,
            diarizer=diarizer,
        )

    def _watch_gpu(self, name: str, metrics: Metrics) -> None:
        from ssasr.engine.devices import choose_device, gpu_uuid

        uuid = gpu_uuid(choose_device(self.device))
        if uuid is not None:
            metrics.device_memory.labels(name).set_function(reserved_bytes)
            if (collector := gpu_collector(name, uuid)) is not None:
                metrics.registry.register(collector)


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
