"""A transcription session as OpenAI's clients describe it, and what it means in our parameters.

``RealtimeSettings`` is the ``session`` object of ``session.update``; ``updated`` applies another
one to it, of which only the fields that are there count. ``parameters`` makes ours of it: family U,
whose final words never change, so that deltas add up to the transcript.
"""

import json
from typing import Any
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from ssasr.gateway.openai.errors import ApiError
from ssasr.gateway.openai.json_object import JsonObject, Refused
from ssasr.gateway.openai.models import DIARIZING, ModelNames
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import DAY_MS, LONGEST_SILENCE
from ssasr.protocol.parameters import SessionParameters, parse_parameters
from ssasr.protocol.speech_models import EngineKind

FORMATS = {
    "audio/pcm": ("pcm_s16le", 24_000),
    "audio/pcmu": ("pcm_mulaw", 8_000),
    "audio/pcma": ("pcm_alaw", 8_000),
}
"""The encoding and the rate that each means."""
LOGPROBS = "item.input_audio_transcription.logprobs"
WORDS = "item.input_audio_transcription.words"
"""An extension of ours: the times of the words."""
INCLUDES = (LOGPROBS, WORDS)
SHORTEST_IDLE = 1_000
"""Milliseconds: silence is noticed once a second."""
EAGERNESS = {"low": (800, 8_000, 0.9), "medium": (400, 4_000, 0.4), "high": (160, 2_000, 0.2)}
"""Milliseconds of silence that end a turn, after words that sound like an end and after any, and
how likely an end must be. The longest silences are OpenAI's; the rest is ours."""
NOISE_REDUCTION = ("near_field", "far_field")
DELAYS = ("minimal", "low", "medium", "high", "xhigh")
WITHOUT_DETECTION = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models whose clients commit for themselves, and do not say so."""


@frozen
class TurnDetection:
    """``server_vad`` or ``semantic_vad``; milliseconds."""

    type: str
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: str = "auto"
    idle_timeout_ms: int | None = None
    """Silence after which there is an event, once; None: never."""

    @classmethod
    def of(cls, given: JsonObject) -> "TurnDetection":
        kind = given.text("type", ("server_vad", "semantic_vad")) or "server_vad"
        own: dict[str, Any] = {
            "threshold": given.number("threshold", 0, 1),
            "prefix_padding_ms": given.integer("prefix_padding_ms", 0, DAY_MS),
            "silence_duration_ms": given.integer("silence_duration_ms", 0, DAY_MS),
            "eagerness": given.text("eagerness", (*EAGERNESS, "auto")),
            "idle_timeout_ms": given.integer("idle_timeout_ms", SHORTEST_IDLE, DAY_MS),
        }
        if kind == "semantic_vad" and own["idle_timeout_ms"] is not None:
            raise given.refused("idle_timeout_ms", "none with semantic_vad")
        return evolve(cls(kind), **{name: each for name, each in own.items() if each is not None})

    def shown(self) -> dict[str, Any]:
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness}
        return {
            "type": self.type,
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
        }

    def query(self) -> dict[str, object]:
        """A turn that a VAD ends is ended by silence alone, however the words sound."""
        if self.type == "semantic_vad":
            shorter, longer, likely = EAGERNESS[self.eagerness.replace("auto", "medium")]
            return {
                "min_turn_silence": shorter,
                "max_turn_silence": longer,
                "end_of_turn_confidence_threshold": likely,
            }
        return {
            "vad_threshold": self.threshold,
            "min_turn_silence": self.silence_duration_ms,
            "max_turn_silence": self.silence_duration_ms,
            "end_of_turn_confidence_threshold": 1,
            **({"acknowledge_silence": "true"} if self.idle_timeout_ms else {}),
        }


COMMITTED_BY_CLIENT = {
    "min_turn_silence": LONGEST_SILENCE,
    "max_turn_silence": DAY_MS,
    "end_of_turn_confidence_threshold": 1,
}


@frozen
class Transcription:
    """``model``: as the client names it, or none."""

    model: str | None = None
    language: str | None = None
    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = field(default=(), repr=False)
    prompt: str | None = field(default=None, repr=False)
    delay: str | None = None

    def updated(self, given: JsonObject) -> "Transcription":
        values: dict[str, Any] = {
            "model": given.text("model"),
            "language": given.text("language"),
            "prompt": given.text("prompt"),
            "delay": given.text("delay", DELAYS),
            "languages": given.texts("languages") or (),
            "keywords": given.texts("keywords") or (),
        }
        changed = {name: value for name, value in values.items() if name in given}
        if changed.get("language"):
            changed["languages"] = ()
        elif changed.get("languages"):
            changed["language"] = None
        return evolve(self, **changed)

    @property
    def diarizes(self) -> bool:
        """Whether the client waits for segments with who says them."""
        return (self.model or "").startswith(DIARIZING)

    @property
    def expected(self) -> tuple[str, ...]:
        """The languages that may be spoken; none: whatever the model knows."""
        return (self.language,) if self.language else self.languages

    def shown(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "language": self.language,
            "prompt": self.prompt,
            **({"languages": list(self.languages)} if self.languages else {}),
            **({"keywords": list(self.keywords)} if self.keywords else {}),
            **({"delay": self.delay} if self.delay else {}),
        }

    def engine(self, names: ModelNames) -> EngineKind:
        """Raises Refused."""
        try:
            return names.engine(self.model, self.expected)
        except ApiError as error:
            path = f"session.audio.input.transcription.{error.param}"
            raise Refused(error.text, error.code, path) from None

    def query(self, engine: EngineKind) -> dict[str, object]:
        found: dict[str, object] = {"speech_model": f"universal-streaming-{engine.value}"}
        if self.expected:
            found["language_codes"] = json.dumps(self.expected)
        if len(self.expected) != 1 and engine is EngineKind.MULTILINGUAL:
            found["language_detection"] = "true"
        if self.keywords:
            found["keyterms_prompt"] = json.dumps(self.keywords)
        if self.prompt:
            found["prompt"] = self.prompt
        if self.diarizes:
            found["speaker_labels"] = "true"
        return found


@frozen
class RealtimeSettings:
    """``detection``: None where the client commits; ``detection_given``: the client has said
    which."""

    format: str = "audio/pcm"
    transcription: Transcription = Transcription()
    detection: TurnDetection | None = TurnDetection("server_vad")
    detection_given: bool = False
    noise_reduction: str | None = None
    include: tuple[str, ...] = ()

    def updated(self, session: JsonObject) -> "RealtimeSettings":
        """Raises Refused, and then nothing has changed."""
        session.text("type", ("transcription",))
        changed = self
        include = session.texts("include")
        if include is not None:
            if not set(include) <= set(INCLUDES):
                raise session.refused("include", f"any of {', '.join(INCLUDES)}")
            changed = evolve(changed, include=include)
        audio = session.inner("audio")
        given = None if audio is None else audio.inner("input")
        return changed if given is None else changed._with_input(given)

    def _with_input(self, given: JsonObject) -> "RealtimeSettings":
        changed = self
        if (wanted := given.inner("format")) is not None:
            kind = wanted.text("type", tuple(FORMATS)) or "audio/pcm"
            wanted.integer("rate", FORMATS[kind][1], FORMATS[kind][1])
            changed = evolve(changed, format=kind)
        if "noise_reduction" in given:
            noise = given.inner("noise_reduction")
            kind_of_noise = None if noise is None else noise.text("type", NOISE_REDUCTION)
            changed = evolve(changed, noise_reduction=kind_of_noise)
        if "transcription" in given:
            transcription = given.inner("transcription")
            named = (
                Transcription()
                if transcription is None
                else changed.transcription.updated(transcription)
            )
            changed = evolve(changed, transcription=named)
        return changed._with_detection(given)

    def _with_detection(self, given: JsonObject) -> "RealtimeSettings":
        if "turn_detection" in given:
            wanted = given.inner("turn_detection")
            detection = None if wanted is None else TurnDetection.of(wanted)
            return evolve(self, detection=detection, detection_given=True)
        if self.detection_given:
            return self
        alone = (self.transcription.model or "").startswith(WITHOUT_DETECTION)
        return evolve(self, detection=None if alone else TurnDetection("server_vad"))

    def shown(self) -> dict[str, Any]:
        """As the server's events repeat it."""
        encoding, rate = FORMATS[self.format]
        pcm = {"rate": rate} if encoding == "pcm_s16le" else {}
        noise = self.noise_reduction
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "include": list(self.include),
            "audio": {
                "input": {
                    "format": {"type": self.format} | pcm,
                    "noise_reduction": None if noise is None else {"type": noise},
                    "transcription": self.transcription.shown(),
                    "turn_detection": None if self.detection is None else self.detection.shown(),
                }
            },
        }

    def parameters(self, engine: EngineKind) -> SessionParameters:
        """On that engine. Raises Refused."""
        encoding, rate = FORMATS[self.format]
        detection = COMMITTED_BY_CLIENT if self.detection is None else self.detection.query()
        query = {"encoding": encoding, "sample_rate": rate}
        try:
            parsed = parse_parameters(
                urlencode(query | detection | self.transcription.query(engine))
            )
        except ClientFault as fault:
            raise Refused(fault.text, param="session.audio.input.transcription") from None
        return evolve(parsed, always_formatted=True, announce_speech=self.detection is not None)
