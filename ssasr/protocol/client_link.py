"""The server's side of one client session, as a state machine without I/O and without a clock.

Theory of operation. The session passes every frame that it receives to ``receive`` and acts on the
events that this returns; it passes every message to ``send`` (or ``begin``) and writes the returned
text to the socket, in the same order. ``receive`` raises ``ClientFault`` if the client breaks the
rules; the session then sends ``Error`` and closes with the fault's code. ``send`` raises
``LocalProtocolError`` if we break them, which is a bug.

Rule 1: everything that decides what is legal when is in ``TRANSITIONS``; a pair that is not in the
table is the error. Rule 2: nothing outside this file sets the state.

Two things are not states. A client may send audio and messages before it has read ``Begin``
(several do), so ``receive`` works from the start. And a client that has sent ``Terminate`` may
still have audio under way: once terminated, what it sends is dropped without being looked at.

Within the stream of Turns the rules are counters: a turn ends once, ``turn_order`` counts turns
without a gap, and in family P every turn's first ``Turn`` comes after a ``SpeechStarted``.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

from attrs import frozen

from ssasr.protocol import messages
from ssasr.protocol.close_codes import CloseCode, EndCause
from ssasr.protocol.codec import TurnWriter, decode, encode
from ssasr.protocol.faults import ClientFault, LocalProtocolError
from ssasr.protocol.limits import SAMPLE_BYTES
from ssasr.protocol.messages import (
    Answered,
    Begin,
    BeginConfiguration,
    EndpointReached,
    ForceEndpoint,
    KeepAlive,
    ServerMessage,
    SessionMessage,
    SpeechStarted,
    SpeechStopped,
    Terminate,
    Turn,
    UpdateConfiguration,
)
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.speech_models import Family
from ssasr.protocol.values import value

MESSAGE_LIMIT = 1 << 20
"""Bytes of one message from the client."""
LONGEST_MS = 1_000
LONGEST_TOLERANCE_MS = 1
"""Allows for a client that rounds up by a sample or two."""
SHORT_HALF_MS = 99
"""A message below 49.5 ms counts as short: one client sends 49.98 ms all the time."""
SHORT_RUN_MS = 1_000
"""This much audio in consecutive short messages is a fault; every client's last message may be
short (the hosted service was seen to raise 3007 after about a second of 20 ms messages)."""


# -- events ----------------------------------------------------------------------------------------


@value
class AudioReceived:
    """Encoded audio of one message."""

    data: bytes


@frozen
class ConfigurationUpdated:
    """The session's parameters from the next audio on."""

    parameters: SessionParameters


@frozen
class EndpointForced:
    """End the turn now. ``acknowledged``: ``EndpointReached`` is to follow what was said until
    then, also where that was nothing."""

    acknowledged: bool = False


@frozen
class KeptAlive:
    """The inactivity timer starts again (as with every other event)."""


@frozen
class TerminateRequested:
    """Finish the audio received, then ``Termination``, then close 1000."""


Event = (
    AudioReceived
    | ConfigurationUpdated
    | EndpointForced
    | KeptAlive
    | TerminateRequested
    | Answered
)


# -- states ----------------------------------------------------------------------------------------


class State(enum.Enum):
    """Where a session is."""

    OPENING = "accepted, Begin not sent yet; the client may already speak"
    OPENING_TO_END = "Terminate came before Begin was sent"
    OPEN = "Begin sent"
    ENDING = "Terminate received; Turns may still follow"
    ENDED = "Termination or Error sent; only the close frame is left"


class Audio:
    """The type of a binary frame in the table."""


Row = Mapping[type, State]


def _received(then: State, terminated: State) -> dict[type, State]:
    same = (Audio, UpdateConfiguration, ForceEndpoint, KeepAlive)
    return {**dict.fromkeys(same, then), Terminate: terminated}


def _after_sending(then: State) -> dict[type, State]:
    kinds = (
        SpeechStarted,
        Turn,
        messages.SpeakerRevision,
        messages.Heartbeat,
        messages.Silence,
        messages.WarningMessage,
        messages.LLMGatewayResponse,
    )
    ends = (messages.Termination, messages.Error)
    return {**dict.fromkeys(kinds, then), **dict.fromkeys(ends, State.ENDED)}


# Termination is legal in OPEN too: a session that expires says it without having been asked.
TRANSITIONS: Mapping[State, Row] = MappingProxyType(
    {
        State.OPENING: {
            **_received(State.OPENING, State.OPENING_TO_END),
            Begin: State.OPEN,
            messages.Error: State.ENDED,
        },
        State.OPENING_TO_END: {Begin: State.ENDING, messages.Error: State.ENDED},
        State.OPEN: {**_received(State.OPEN, State.ENDING), **_after_sending(State.OPEN)},
        State.ENDING: _after_sending(State.ENDING),
        State.ENDED: {},
    }
)
IGNORING = frozenset({State.OPENING_TO_END, State.ENDING, State.ENDED})
"""States in which everything that the client sends is dropped."""


class ClientLink:
    """One session's protocol state; see the module."""

    def __init__(self, parameters: SessionParameters) -> None:
        self._parameters = parameters
        self._state = State.OPENING
        self._allowed = TRANSITIONS[State.OPENING]
        self._ignoring = False
        self._turn_order = 0
        self._turn_sent = False
        self._speech_started = False
        self._turns = TurnWriter()
        self._short_run = 0  # bytes in consecutive short messages

    @property
    def state(self) -> State:
        return self._state

    @property
    def parameters(self) -> SessionParameters:
        """The parameters as last updated."""
        return self._parameters

    def frames(self, message: SessionMessage) -> tuple[str, ...]:
        """``send``, as a session calls it."""
        if isinstance(message, (SpeechStopped, EndpointReached, Answered)):
            raise LocalProtocolError(f"{type(message).__name__} is not of this protocol")
        return (self.send(message),)

    def refusal(self, fault: ClientFault) -> tuple[str, ...]:
        """What is sent before the close frame, in whatever state the session was left."""
        return refusal(fault)

    def begin(
        self, session_id: str, expires_at: int, configuration: BeginConfiguration | None = None
    ) -> str:
        """The frame that opens the session; ``expires_at`` in whole Unix seconds."""
        return self.send(Begin(session_id, expires_at, configuration))

    def receive(self, frame: str | bytes) -> list[Event]:
        """The events in one frame of the client. Raises ClientFault with 1009, 3006 or 3007."""
        if self._ignoring:
            return []
        check_size(frame)
        if isinstance(frame, str):
            return self._receive_message(frame)
        self._advance(Audio)
        if not frame:
            return []
        if not self._parameters.compressed:
            self._check_duration(len(frame))
        return [AudioReceived(bytes(frame))]

    def _receive_message(self, text: str) -> list[Event]:
        message = decode(text)
        self._advance(type(message))
        match message:
            case UpdateConfiguration():
                self._parameters = self._parameters.updated(message)
                return [ConfigurationUpdated(self._parameters)]
            case ForceEndpoint():
                return [EndpointForced()]
            case KeepAlive():
                return [KeptAlive()]
            case Terminate():
                return [TerminateRequested()]
            case _:
                assert_never(message)

    def _check_duration(self, size: int) -> None:
        """The 50-1000 ms rule, in bytes so that a split sample counts as what it is."""
        width = SAMPLE_BYTES[self._parameters.encoding]
        second = width * self._parameters.sample_rate
        too_long = size * 1_000 > second * (LONGEST_MS + LONGEST_TOLERANCE_MS)
        short = size * 2_000 < second * SHORT_HALF_MS
        self._short_run = self._short_run + size if short else 0
        if too_long or self._short_run * 1_000 >= second * SHORT_RUN_MS:
            raise ClientFault(
                CloseCode.INPUT_RATE,
                f"Input Duration Error: Input Duration Violation: {size * 1_000 / second:.1f} ms. "
                "Expected between 50 and 1000 ms",
                cause=EndCause.INPUT_DURATION,
            )

    def send(self, message: ServerMessage) -> str:
        """The text frame for ``message``; ``LocalProtocolError`` if it may not be sent now."""
        if isinstance(message, Turn):
            self._check_turn(message)
            frame = self._turns.write(message)
        else:
            if isinstance(message, SpeechStarted):
                self._check_speech_started()
            frame = encode(message)
        self._advance(type(message))
        return frame

    def _check_turn(self, turn: Turn) -> None:
        if turn.turn_order != self._turn_order:
            raise LocalProtocolError(f"turn {turn.turn_order} said, {self._turn_order} is next")
        if self._parameters.family is Family.P and not self._speech_started:
            raise LocalProtocolError(f"no SpeechStarted before turn {turn.turn_order}")
        self._turn_order += turn.end_of_turn
        self._turn_sent = not turn.end_of_turn
        self._speech_started = self._speech_started and not turn.end_of_turn

    def _check_speech_started(self) -> None:
        if self._parameters.family is not Family.P:
            raise LocalProtocolError("SpeechStarted is for family P only")
        if self._turn_sent:
            raise LocalProtocolError(f"SpeechStarted inside turn {self._turn_order}")
        self._speech_started = True

    def _advance(self, kind: type) -> None:
        after = self._allowed.get(kind)
        if after is None:
            raise LocalProtocolError(f"{kind.__name__} in state {self._state.name}")
        if after is not self._state:
            self._state, self._allowed = after, TRANSITIONS[after]
            self._ignoring = after in IGNORING


def refusal(fault: ClientFault) -> tuple[str, ...]:
    """The same before there is a session."""
    return (encode(messages.Error(error=fault.text, error_code=int(fault.code))),)


def check_size(frame: str | bytes) -> None:
    """``ClientFault`` 1009."""
    if _exceeds_limit(frame):
        raise ClientFault(
            CloseCode.MESSAGE_TOO_BIG,
            f"Message Too Big: more than {MESSAGE_LIMIT} bytes",
            cause=EndCause.MESSAGE_TOO_BIG,
        )


def _exceeds_limit(frame: str | bytes) -> bool:
    if isinstance(frame, bytes):
        return len(frame) > MESSAGE_LIMIT
    # Most texts are far below a quarter of the limit: no need to encode those to count them.
    return len(frame) > MESSAGE_LIMIT // 4 and len(frame.encode("utf-8", "replace")) > MESSAGE_LIMIT
