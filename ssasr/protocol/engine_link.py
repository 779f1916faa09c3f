"""The link between a gateway and an engine: one stream over one WebSocket, as a machine without
I/O.

Theory of operation. A link carries one stream for its whole life; there is no multiplexing, so that
a load balancer can place streams one by one and a lost connection loses one stream. What flows is
defined in ``protocol.recognition``; how it is written, in ``protocol.engine_wire`` and
``engine_delta``. This file says who may say what when.

Both ends run the same state machine, with their ``Role``. It advances with each message sent
(``send`` returns the frame) and received (``receive``). It keeps only what both ends know: the
state and the stream's position (``StreamPosition``). A breach by the peer raises ``PeerFault``, a
breach by us ``LocalProtocolError``, which is a bug. Rule 1: what is legal when is decided by
``TRANSITIONS`` and ``ALLOWED_SENDERS`` alone; a pair that is not in them is an error. Rule 2: the
tables do not depend on the role, so both ends are held to the same rules.

Life of a link:

    gateway                                             engine
       │  HTTP upgrade, X-Model-Version, ssasr.engine.v4   │  a slot is reserved, or 503
       │ ────────────────────────────────────────────────▶ │
       │  Open(options, segment, start, committed)         │
       │ ────────────────────────────────────────────────▶ │
       │                                   Opened(model)   │
       │ ◀──────────────────────────────────────────────── │
       │  Audio, Configure, Finalize                       │
       │ ────────────────────────────────────────────────▶ │
       │                   Update, Final, Draining (once)  │
       │ ◀──────────────────────────────────────────────── │
       │  close 1000                                       │

Admission happens before the WebSocket exists: an engine without room answers the HTTP request with
503 and ``X-Ssasr-Refusal: full``, and a load balancer tries the next replica. The version of the
protocol is negotiated there too (``Sec-WebSocket-Protocol``): an engine that does not speak what
the gateway offers answers 400 and names both.

The sequence number of audio is its stream position. ``Audio.start`` continues exactly where the
last message ended, so a byte lost or doubled anywhere is noticed at once. An update acknowledges
the audio before its position. It is not a receipt for single messages: it allows the sender to send
more, and shows how far behind a slow engine is.

Segments. ``Finalize(k, at)`` asks for the end of segment k; only one may be open. Until it answers,
the engine may go on sending updates of segment k; after ``Final(k, at)`` every message, at both
ends, is about segment k+1, because answers keep their order.

Draining is a notice, sent at most once, and not a state of the stream: the engine goes on
answering.

Whether a silent peer is alive is decided by ``protocol.liveness``, from what was received and when.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from ssasr.protocol.engine_delta import DeltaReader, DeltaWriter
from ssasr.protocol.engine_wire import Message, decode, decode_audio, encode, encode_audio
from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.recognition import (
    Audio,
    Configure,
    Draining,
    Final,
    Finalize,
    Open,
    Opened,
    Update,
)
from ssasr.protocol.stream_position import OutOfPlace, StreamPosition

VERSION = 5
SUBPROTOCOL = f"ssasr.engine.v{VERSION}"
PATH = "/v1/stream"
REFUSAL_HEADER = "X-Ssasr-Refusal"
SESSION_HEADER = "X-Ssasr-Session"
"""So that the balancer's line and an engine's refusal carry the session's id."""
ENGINE_HEADER = "X-Ssasr-Engine"
"""By which the balancer says whom it asked."""
VERSION_HEADER = "X-Model-Version"
MESSAGE_LIMIT = 1 << 20
"""Bytes of one message. A second of audio is 32 kB; the words of an hour-long segment fit too."""


class Refusal(enum.Enum):
    """Why an engine answers the handshake with 503; the value of ``X-Ssasr-Refusal``."""

    FULL = "full"
    STARTING = "starting"
    DRAINING = "draining"


class Role(enum.Enum):
    """Which end we are."""

    GATEWAY = "gateway"
    ENGINE = "engine"


class State(enum.Enum):
    """Where a link is."""

    CONNECTED = "the WebSocket is up; Open comes first"
    OPENING = "Open was said; the engine answers Opened"
    STREAMING = "audio one way, answers the other"
    DRAINING = "the engine has said that it is going away; all else goes on"


def _streaming(then: State) -> dict[type, State]:
    return dict.fromkeys((Audio, Configure, Finalize, Update, Final), then)


TRANSITIONS: Mapping[State, Mapping[type, State]] = MappingProxyType(
    {
        State.CONNECTED: {Open: State.OPENING},
        State.OPENING: {Opened: State.STREAMING},
        State.STREAMING: {**_streaming(State.STREAMING), Draining: State.DRAINING},
        State.DRAINING: _streaming(State.DRAINING),
    }
)
ALLOWED_SENDERS: Mapping[type, Role] = MappingProxyType(
    {
        **dict.fromkeys((Open, Audio, Configure, Finalize), Role.GATEWAY),
        **dict.fromkeys((Opened, Update, Final, Draining), Role.ENGINE),
    }
)


class EngineLink:
    """One end of one link; see the module."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._state = State.CONNECTED
        self._allowed = TRANSITIONS[State.CONNECTED]
        self.position = StreamPosition()
        self._writer = DeltaWriter()
        self._reader = DeltaReader()

    @property
    def role(self) -> Role:
        return self._role

    @property
    def state(self) -> State:
        return self._state

    def send(self, message: Message) -> str | bytes:
        """The frame for ``message``. Raises LocalProtocolError if it may not be said now."""
        if ALLOWED_SENDERS[type(message)] is not self._role:
            raise LocalProtocolError(f"{type(message).__name__} is not ours to say")
        try:
            self._advance(message)
        except OutOfPlace as breach:
            raise LocalProtocolError(str(breach)) from None
        if isinstance(message, Audio):
            return encode_audio(message)
        return (
            self._writer.write(message) if isinstance(message, (Update, Final)) else encode(message)
        )

    def receive(self, frame: str | bytes) -> Message:
        """What a frame of the peer says. Raises PeerFault."""
        message = self._decode(frame)
        if ALLOWED_SENDERS[type(message)] is self._role:
            raise PeerFault(f"{type(message).__name__} is not the peer's to say")
        try:
            self._advance(message)
        except OutOfPlace as breach:
            raise PeerFault(str(breach)) from None
        return message

    def _decode(self, frame: str | bytes) -> Message:
        if isinstance(frame, str):
            return decode(frame)
        return decode_audio(frame) if self._role is Role.ENGINE else self._reader.read(frame)

    def _advance(self, message: Message) -> None:
        """Raises OutOfPlace."""
        after = self._allowed.get(type(message))
        if after is None:
            raise OutOfPlace(f"{type(message).__name__} in state {self._state.name}")
        self.position.note(message)
        if after is not self._state:
            self._state, self._allowed = after, TRANSITIONS[after]
