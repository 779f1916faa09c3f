"""Who may open a session: long-lived keys, temporary tokens, and how many at once."""

import hmac
import math

from attrs import define, field

from ssasr.protocol.close_codes import CloseCode, EndCause
from ssasr.protocol.faults import ClientFault


def unauthorized(problem: str) -> ClientFault:
    text = f"Unauthorized Connection: {problem}"
    return ClientFault(CloseCode.UNAUTHORIZED, text, cause=EndCause.UNAUTHORIZED)


@define(eq=False)
class Grant:
    """One admitted session; leaving the block gives its place back."""

    max_duration: float = math.inf

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        pass


@define(eq=False)
class Access:
    """``keys`` are compared in constant time."""

    keys: tuple[str, ...] = field(default=("self-hosted",), repr=False)

    def open_session(self, authorization: str | None, token: str | None, now: float) -> Grant:
        """Raises ClientFault 1008."""
        credential = token or authorization
        if not credential:
            raise unauthorized("Missing Authorization header")
        if not self.is_key(credential):
            raise unauthorized("Not authorized")
        return Grant()

    def is_key(self, credential: str) -> bool:
        given = credential.removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given, key.encode()) for key in self.keys]
        return any(matches)
