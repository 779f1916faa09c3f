"""Temporary tokens: what a browser opens a session with instead of a key.

A token is signed and holds all there is to know about it, so every gateway with the same secret can
check it. Single use needs memory: each gateway remembers what it has redeemed until it expires, and
a token may therefore be used once *per gateway*. Nothing here reads a clock; ``now`` is Unix time.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from urllib.parse import parse_qsl

from attrs import define, field, frozen

from ssasr.errors import SsasrError

LONGEST_EXPIRY = 600
"""Seconds within which a token may open a session."""
SHORTEST_SESSION, LONGEST_SESSION = 60, 10_800
_PAYLOAD = struct.Struct(">dI8s12s")
"""Expiry, cap of the session in seconds, id of the key that asked for it, nonce."""
_VERSION = "t1"
_MAC_BYTES = 24
SHORTEST_SECRET = 16
"""Bytes."""
MEMORY = 100_000
"""Redeemed tokens that are remembered: 166 a second for as long as a token can live."""


class TokenError(SsasrError):
    """The token opens nothing; the text may be shown to the client."""


class TokenMemoryFull(SsasrError):
    """Too many tokens were redeemed in the last minutes to remember one more."""


class TokenRequestError(SsasrError):
    """``GET /v3/token`` with unusable parameters: HTTP 400, ``{"error": str(fault)}``."""


@frozen
class TokenRequest:
    """What ``GET /v3/token`` asks for; seconds."""

    expires_in: int
    max_session_duration: int = LONGEST_SESSION


@frozen
class Token:
    """What a valid token says. ``key_id`` is that of the key which it was issued to."""

    expires_at: float
    max_session_duration: int
    key_id: bytes
    nonce: bytes


def parse_token_request(query: str) -> TokenRequest:
    """From the query string of ``GET /v3/token``; raises TokenRequestError."""
    values = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
    expiry = _seconds(values, "expires_in_seconds", 1, LONGEST_EXPIRY)
    if expiry is None:
        raise TokenRequestError("expires_in_seconds is required")
    name = "max_session_duration_seconds"
    cap = _seconds(values, name, SHORTEST_SESSION, LONGEST_SESSION)
    return TokenRequest(expiry, LONGEST_SESSION if cap is None else cap)


def _seconds(values: dict[str, str], name: str, low: int, high: int) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
        raise TokenRequestError(f"{name} must be an integer between {low} and {high}")
    return int(text)


@define(eq=False)
class TokenMint:
    """Issues and checks. ``secret``: at least 16 bytes, the same in every gateway."""

    secret: bytes = field(repr=False)
    random: Callable[[int], bytes] = secrets.token_bytes

    @secret.validator
    def _long_enough(self, _: object, secret: bytes) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"a token secret has at least {SHORTEST_SECRET} bytes")

    def issue(self, request: TokenRequest, key_id: bytes, now: float) -> str:
        """A token in letters that are safe in a URL and in a header."""
        payload = _PAYLOAD.pack(
            now + request.expires_in, request.max_session_duration, key_id, self.random(12)
        )
        return f"{_VERSION}.{_text(payload)}.{_text(self._signature(payload))}"

    def check(self, text: str, now: float) -> Token:
        """What the token says; TokenError if it is not ours or has expired."""
        version, _, rest = text.partition(".")
        payload_text, _, signature = rest.partition(".")
        payload = _bytes(payload_text)
        expected = self._signature(payload)
        genuine = hmac.compare_digest(_bytes(signature), expected)
        if version != _VERSION or not genuine or len(payload) != _PAYLOAD.size:
            raise TokenError("Invalid token")
        token = Token(*_PAYLOAD.unpack(payload))
        if now >= token.expires_at:
            raise TokenError("Token expired")
        return token

    def _signature(self, payload: bytes) -> bytes:
        message = f"ssasr {_VERSION} ".encode() + payload
        return hmac.digest(self.secret, message, hashlib.sha256)[:_MAC_BYTES]


def looks_like_token(credential: str) -> bool:
    """Whether to take a credential of unknown kind for a token: one SDK sends them as keys."""
    return credential.startswith(f"{_VERSION}.")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """b"" for what is not base64, or not written as we write it: one token has one spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _text(data) == text else b""


@define(eq=False)
class Redeemed:
    """The tokens that have been used, each until it expires."""

    memory: int = MEMORY
    _expiry: dict[bytes, float] = field(factory=dict, init=False)

    def redeem(self, token: Token, now: float) -> None:
        """TokenError the second time."""
        if token.nonce in self._expiry:
            raise TokenError("Token already used")
        if len(self._expiry) >= self.memory:
            self._expiry = {nonce: at for nonce, at in self._expiry.items() if at > now}
            if len(self._expiry) >= self.memory:
                raise TokenMemoryFull("Too many temporary tokens")
        self._expiry[token.nonce] = token.expires_at

    def __len__(self) -> int:
        return len(self._expiry)
