"""The messages of the client protocol, both directions, with the wire's own names.

Times are integer milliseconds of audio received. An optional field that is ``None`` is left out on
the wire, never sent as null: ``language_code: null`` makes one client drop the whole Turn. Only
``Error`` may have a field named ``error``: another client tests for that key alone.
"""

from typing import Any

from attrs import frozen

# -- client to server ----------------------------------------------------------------------------


@frozen
class UpdateConfiguration:
    """New values from the next audio on; ``None`` leaves a value as it is. Fields that the model
    has no use for are accepted."""

    language_codes: tuple[str, ...] | None = None
    format_turns: bool | None = None
    end_of_turn_confidence_threshold: float | None = None
    min_turn_silence: int | None = None
    min_end_of_turn_silence_when_confident: int | None = None
    max_turn_silence: int | None = None
    max_turn_duration: float | None = None
    vad_threshold: float | None = None
    keyterms_prompt: tuple[str, ...] | None = None
    prompt: str | None = None
    agent_context: str | None = None
    filter_profanity: bool | None = None
    continuous_partials: bool | None = None
    interruption_delay: int | None = None
    turn_left_pad_ms: int | None = None
    mode: str | None = None
    session_heartbeat: bool | None = None
    acknowledge_silence: bool | None = None


@frozen
class ForceEndpoint:
    """End the current turn now."""


@frozen
class KeepAlive:
    """Restarts the inactivity timer."""


@frozen
class Terminate:
    """Finish the audio received and end the session."""


ClientMessage = UpdateConfiguration | ForceEndpoint | KeepAlive | Terminate


# -- server to client ----------------------------------------------------------------------------


@frozen
class BeginConfiguration:
    """What the session runs with. A feature that was asked for and is not there is echoed as
    false; ``domain`` and ``voice_focus``, which are hints, as they were asked for."""

    model: str | None = None
    mode: str | None = None
    api_version: str | None = None
    speaker_labels: bool | None = None
    filter_profanity: bool | None = None
    redact_pii: bool | None = None
    domain: str | None = None
    voice_focus: str | None = None
    voice_focus_threshold: float | None = None


@frozen
class Begin:
    """First message of every accepted session. ``expires_at`` is Unix time in whole seconds."""

    id: str
    expires_at: int
    configuration: BeginConfiguration | None = None


@frozen
class SpeechStarted:
    """Family P: somebody began to speak. ``confidence`` is read by the self-hosting example, which
    dies without it."""

    timestamp: int
    confidence: float


@frozen
class TurnWord:
    """One word of a Turn; ``text`` is never empty and has no outer spaces."""

    text: str
    start: int
    end: int
    confidence: float
    word_is_final: bool
    speaker: str | None = None
    speaker_confidence: float | None = None
    """0 to 1: how much more the voice is like the speaker's than like the next one's."""


@frozen
class Turn:
    """The turn so far, or, with ``end_of_turn``, all of it."""

    turn_order: int
    turn_is_formatted: bool
    end_of_turn: bool
    transcript: str
    utterance: str
    end_of_turn_confidence: float
    words: tuple[TurnWord, ...]
    language_code: str | None = None
    language_confidence: float | None = None
    speaker_label: str | None = None


@frozen
class RevisedTurn:
    """A turn whose speakers are others than was said. Texts and times are as they were."""

    turn_order: int
    speaker_label: str
    words: tuple[TurnWord, ...]


@frozen
class SpeakerRevision:
    """Only with ``speaker_labels``: the turns that change; the last word on a turn counts."""

    revisions: tuple[RevisedTurn, ...]


@frozen
class Termination:
    """Last message of a session that the client ended; whole seconds."""

    audio_duration_seconds: int
    session_duration_seconds: int


@frozen
class Error:
    """The session is over; a close frame with the same code follows at once."""

    error: str
    error_code: int


@frozen
class WarningMessage:
    """``Warning`` on the wire. One client shows it as an error, so none is sent by default."""

    warning_code: int
    warning: str


@frozen
class Heartbeat:
    """Only after ``session_heartbeat=true``."""

    total_audio_received_ms: int
    total_duration_ms: int
    realtime_factor: float
    max_speech_probability: float
    total_audio_processed_ms: int
    """What an engine has listened to; ours alone."""


@frozen
class Silence:
    """Only after ``acknowledge_silence=true``."""

    start_ms: int
    end_ms: int


@frozen
class LLMGatewayResponse:
    """Only with ``llm_gateway``: what the operator's LLM says to a turn that has ended. ``data``:
    JSON types; see the page on the protocol."""

    turn_order: int
    transcript: str
    data: dict[str, Any]


# -- what only other protocols than this one say -------------------------------------------------


@frozen
class SpeechStopped:
    """What began with SpeechStarted is over, and its Turn, if it was one, has been sent;
    ``timestamp`` is where the next may begin. Only with ``SessionParameters.announce_speech``."""

    timestamp: int


@frozen
class EndpointReached:
    """All that was said before an endpoint that the client forced has been sent. Only where the
    endpoint asked for it (``client_link.EndpointForced``)."""


@frozen
class Answered:
    """What the client's link itself answers, at once."""

    frame: str


ServerMessage = (
    Begin
    | SpeechStarted
    | Turn
    | SpeakerRevision
    | Termination
    | Error
    | WarningMessage
    | Heartbeat
    | Silence
    | LLMGatewayResponse
)
SessionMessage = ServerMessage | SpeechStopped | EndpointReached | Answered
"""What a session may say, in whatever protocol."""
