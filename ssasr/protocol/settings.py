"""What follows from a session's parameters: for its turns, for its engine, and for ``Begin``.

Parameters are in milliseconds and seconds, as clients give them; settings count samples. Pure.
"""

from attrs import frozen

from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.limits import LONGEST_P_TURN
from ssasr.protocol.messages import BeginConfiguration, WarningMessage
from ssasr.protocol.names import names_in
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.recognition import (
    LOWEST_THRESHOLD,
    SAMPLE_RATE,
    SPEECH_THRESHOLD,
    VAD_FRAME,
    StreamOptions,
)
from ssasr.protocol.speech_models import Family

SHORTEST_PAUSE = 3 * VAD_FRAME
"""A shorter silence than this cannot be distinguished from a gap between two sounds of one word."""
INTERRUPTION_PAD = 256
"""Milliseconds that the hosted service adds to every ``interruption_delay``."""


@frozen
class TurnSettings:
    """What the turn policy needs to know; durations in samples."""

    family: Family
    threshold: float = 0.4
    min_turn_silence: int = 6_400
    max_turn_silence: int = 20_480
    max_turn_duration: int | None = None
    """None: no shorter than any turn must be."""
    vad_threshold: float = 0.4
    format_turns: bool = False
    always_formatted: bool = False
    language_detection: bool = False
    continuous_partials: bool = True
    interruption_delay: int = 8_000
    filter_profanity: bool = False
    chinese: str | None = None
    """As ``SessionParameters``'."""
    languages: tuple[str, ...] = ()
    """What may be spoken; none: whatever the engine detects, English until then."""
    partials: bool = True
    """False: nothing but ends of turns (and SpeechStarted)."""
    acknowledge_silence: bool = False
    announce_speech: bool = False
    """As ``SessionParameters``'."""
    speaker_labels: bool = False
    """True: label the turns that have ended."""
    written: bool = False
    """True: words as the model writes them, whatever form is to be shown."""
    revision_interval: int | None = None
    """Samples between two revisions of the labels; None: only at the end of the session."""


def _samples(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1_000


def _longest_turn(parameters: SessionParameters) -> int | None:
    seconds = parameters.max_turn_duration
    if parameters.family is Family.P:
        seconds = LONGEST_P_TURN if seconds is None else min(seconds, LONGEST_P_TURN)
    return None if seconds is None else int(seconds * SAMPLE_RATE)


def turn_settings(parameters: SessionParameters) -> TurnSettings:
    """The part of the parameters that the turn policy acts on."""
    return TurnSettings(
        family=parameters.family,
        threshold=parameters.end_of_turn_confidence_threshold,
        min_turn_silence=max(_samples(parameters.min_turn_silence), SHORTEST_PAUSE),
        max_turn_silence=max(_samples(parameters.max_turn_silence), SHORTEST_PAUSE),
        max_turn_duration=_longest_turn(parameters),
        vad_threshold=parameters.vad_threshold,
        format_turns=parameters.format_turns,
        always_formatted=parameters.always_formatted,
        language_detection=parameters.language_detection,
        continuous_partials=parameters.continuous_partials,
        interruption_delay=_samples(parameters.interruption_delay + INTERRUPTION_PAD),
        filter_profanity=parameters.filter_profanity,
        chinese=parameters.chinese,
        languages=parameters.languages,
        partials=parameters.include_partial_turns,
        acknowledge_silence=parameters.acknowledge_silence,
        announce_speech=parameters.announce_speech,
        speaker_labels=parameters.speaker_labels,
        written=parameters.redaction is not None,
        revision_interval=_samples(parameters.revision_interval) or None,
    )


def begin_configuration(
    parameters: SessionParameters, model: str, *, speakers: bool = False
) -> BeginConfiguration:
    """What ``Begin`` says the session runs with: ``model``, the name of the model that serves it,
    and false for each feature that was asked for and is not there. ``speakers``: whether the
    engine can tell them apart."""
    return BeginConfiguration(
        model=model,
        mode=parameters.mode,
        speaker_labels=speakers if parameters.speaker_labels else None,
        filter_profanity=True if parameters.filter_profanity else None,
        redact_pii=True if parameters.redaction else None,
        domain=parameters.domain,
        voice_focus=parameters.voice_focus,
        voice_focus_threshold=parameters.voice_focus_threshold,
    )


def begin_warnings(parameters: SessionParameters) -> tuple[WarningMessage, ...]:
    """What follows ``Begin``: of a domain that makes no difference, the documented answer."""
    if parameters.domain is None:
        return ()
    text = f"domain '{parameters.domain}' is not available on this server and is ignored"
    return (WarningMessage(int(CloseCode.INVALID_INPUT), text),)


def stream_options(parameters: SessionParameters) -> StreamOptions:
    """What the engine is given. It judges the end of a turn at the earlier of the two silences."""
    shorter = min(parameters.min_turn_silence, parameters.max_turn_silence)
    tentative = parameters.family is Family.P
    threshold = parameters.recognition_threshold
    return StreamOptions(
        languages=parameters.languages,
        pause=max(_samples(shorter), SHORTEST_PAUSE),
        keyterms=parameters.keyterms,
        vad_threshold=SPEECH_THRESHOLD if threshold is None else max(threshold, LOWEST_THRESHOLD),
        speakers=parameters.speaker_labels,
        tentative=tentative,
        mode=None if tentative else parameters.mode,
        names=names_in(parameters.context),
    )
