"""Why a session ended, and the WebSocket close code that says so.

The numbers and texts are those of the hosted service where it has one; 1001, 1009 and 1013 are the
WebSocket standard's. 1011 is avoided: the Python SDK has no text for it.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

REASON_BYTES = 123
"""What a close frame has room for (RFC 6455: 125 bytes of payload, two of them the code)."""


class CloseCode(enum.IntEnum):
    """Every close code that we send."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNAUTHORIZED = 1008
    MESSAGE_TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013
    SESSION_CANCELLED = 3005
    INVALID_INPUT = 3006
    INPUT_RATE = 3007
    SESSION_EXPIRED = 3008
    TOO_MANY_SESSIONS = 3009


class AtFault(enum.Enum):
    """Who has to change something."""

    NOBODY = "nobody"
    CLIENT = "client"
    SERVER = "server"


@frozen
class CloseEntry:
    """``reason`` is what the close frame says when nothing more exact is known; ``retry``: the same
    client may succeed by trying again, unchanged."""

    reason: str
    at_fault: AtFault
    retry: bool


CLOSE_CODES: Mapping[CloseCode, CloseEntry] = MappingProxyType(
    {
        CloseCode.NORMAL: CloseEntry("Session Ended", AtFault.NOBODY, True),
        CloseCode.GOING_AWAY: CloseEntry("Server Shutting Down", AtFault.SERVER, True),
        CloseCode.UNAUTHORIZED: CloseEntry("Unauthorized Connection", AtFault.CLIENT, False),
        CloseCode.MESSAGE_TOO_BIG: CloseEntry("Message Too Big", AtFault.CLIENT, False),
        CloseCode.TRY_AGAIN_LATER: CloseEntry("Server Overloaded: Try Again", AtFault.SERVER, True),
        CloseCode.SESSION_CANCELLED: CloseEntry(
            "Session Cancelled: An error occurred", AtFault.SERVER, True
        ),
        CloseCode.INVALID_INPUT: CloseEntry("User Input Validation Error", AtFault.CLIENT, False),
        CloseCode.INPUT_RATE: CloseEntry("Input Duration Error", AtFault.CLIENT, False),
        CloseCode.SESSION_EXPIRED: CloseEntry(
            "Session Expired: Maximum session duration exceeded", AtFault.NOBODY, True
        ),
        CloseCode.TOO_MANY_SESSIONS: CloseEntry(
            "Unauthorized Connection: Too many concurrent sessions", AtFault.SERVER, True
        ),
    }
)


class EndCause(enum.Enum):
    """Why a session ended: one metric label, one row in the documents."""

    TERMINATED = "terminated"
    CLIENT_CLOSED = "client_closed"
    CLIENT_VANISHED = "client_vanished"
    UNAUTHORIZED = "unauthorized"
    INVALID_INPUT = "invalid_input"
    MESSAGE_TOO_BIG = "message_too_big"
    INPUT_DURATION = "input_duration"
    RATE_EXCEEDED = "rate_exceeded"
    INACTIVE = "inactive"
    EXPIRED = "expired"
    TOO_MANY_SESSIONS = "too_many_sessions"
    OVERLOADED = "overloaded"
    ENGINE_LOST = "engine_lost"
    INTERNAL = "internal"
    DRAINED = "drained"


class SessionLimit(enum.Enum):
    """Which limit a session met that ended with TOO_MANY_SESSIONS."""

    GATEWAY = "gateway"
    KEY = "key"
    LICENCE = "licence"
    ENGINES = "engines"


END_CAUSES: Mapping[EndCause, CloseCode] = MappingProxyType(
    {
        EndCause.TERMINATED: CloseCode.NORMAL,
        EndCause.CLIENT_CLOSED: CloseCode.NORMAL,
        EndCause.CLIENT_VANISHED: CloseCode.NORMAL,  # nobody is left to read it
        EndCause.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
        EndCause.INVALID_INPUT: CloseCode.INVALID_INPUT,
        EndCause.MESSAGE_TOO_BIG: CloseCode.MESSAGE_TOO_BIG,
        EndCause.INPUT_DURATION: CloseCode.INPUT_RATE,
        EndCause.RATE_EXCEEDED: CloseCode.INPUT_RATE,
        EndCause.INACTIVE: CloseCode.INVALID_INPUT,
        EndCause.EXPIRED: CloseCode.SESSION_EXPIRED,
        EndCause.TOO_MANY_SESSIONS: CloseCode.TOO_MANY_SESSIONS,
        EndCause.OVERLOADED: CloseCode.TRY_AGAIN_LATER,
        EndCause.ENGINE_LOST: CloseCode.SESSION_CANCELLED,
        EndCause.INTERNAL: CloseCode.SESSION_CANCELLED,
        EndCause.DRAINED: CloseCode.GOING_AWAY,
    }
)


def close_reason(text: str) -> str:
    """``text`` cut to what a close frame holds, never inside a character."""
    return text.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")
