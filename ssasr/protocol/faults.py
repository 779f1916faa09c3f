"""The two kinds of protocol fault: theirs, which carries a close code, and ours, which is a bug."""

from ssasr.errors import SsasrError
from ssasr.protocol.close_codes import (
    CLOSE_CODES,
    CloseCode,
    EndCause,
    SessionLimit,
    close_reason,
)


class LocalProtocolError(Exception):
    """We tried to say something that the protocol does not allow here; a bug of ours."""


class ClientFault(SsasrError):
    """The client did something that ends its session: ``Error`` with ``text``, then ``code``."""

    def __init__(
        self,
        code: CloseCode,
        text: str = "",
        *,
        cause: EndCause = EndCause.INVALID_INPUT,
        limit: SessionLimit | None = None,
    ) -> None:
        # The text may quote the client; a lone surrogate of its JSON must not break our encoder.
        self.text = (text or CLOSE_CODES[code].reason).encode("utf-8", "replace").decode("utf-8")
        self.code = code
        self.cause = cause
        self.limit = limit
        super().__init__(self.text)

    @property
    def reason(self) -> str:
        """What the close frame says: the text, at most 123 bytes of UTF-8."""
        return close_reason(self.text)


def too_many_sessions(limit: SessionLimit) -> ClientFault:
    """The client sees one code for all of them; the operator, which limit it was."""
    cause = EndCause.TOO_MANY_SESSIONS
    return ClientFault(CloseCode.TOO_MANY_SESSIONS, cause=cause, limit=limit)


def invalid_value(name: str, problem: str) -> ClientFault:
    """A parameter or field that cannot be used (the hosted service's wording)."""
    return ClientFault(
        CloseCode.INVALID_INPUT, f"User Input Validation Error: Invalid '{name}': {problem}"
    )


def inactivity(seconds: int) -> ClientFault:
    """No message for as long as the client asked us to tolerate."""
    text = f"Session terminated due to inactivity: No messages received for {seconds} seconds"
    return ClientFault(CloseCode.INVALID_INPUT, text, cause=EndCause.INACTIVE)


class PeerFault(SsasrError):
    """The other end of the engine link broke its rules; the link ends and names the breach."""
