"""Who may open a session: keys, temporary tokens, and how many sessions at once per key.

Keys come as text: one a line or separated by commas, optionally followed by the most sessions that
the key may have open. ``*`` stands for any credential that is not empty. No credential is kept,
logged or echoed: a key is known by its digest, and outside this module by its id.
"""

import hashlib
import hmac
import math
from collections import Counter
from typing import Protocol, Self

from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.gateway.auth.tokens import (
    Redeemed,
    Token,
    TokenError,
    TokenMemoryFull,
    TokenMint,
    TokenRequest,
    looks_like_token,
)
from ssasr.protocol.close_codes import CloseCode, EndCause, SessionLimit
from ssasr.protocol.faults import ClientFault, too_many_sessions

DEFAULT_KEYS = "self-hosted"
"""What the official stack's example sends."""
ANY = "*"


def unauthorized(problem: str) -> ClientFault:
    """1008; ``problem`` never holds the credential."""
    text = f"Unauthorized Connection: {problem}"
    return ClientFault(CloseCode.UNAUTHORIZED, text, cause=EndCause.UNAUTHORIZED)


# -- keys ------------------------------------------------------------------------------------------


@frozen
class ApiKey:
    """``digest``: SHA-256 of the key, or None for "any"; ``limit``: sessions at once, or None."""

    digest: bytes | None = field(repr=False)
    limit: int | None = None


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Keys from an option, a variable or a file's content: ``key [limit]``, separated by lines or
    commas; ``#`` starts a comment line. StartRefused for what is malformed, or for no key."""
    keys: dict[bytes | None, ApiKey] = {}
    lines = (line.strip() for line in text.splitlines())
    entries = ",".join(line for line in lines if not line.startswith("#")).split(",")
    for entry in filter(None, map(str.strip, entries)):
        name, *rest = entry.split()
        if len(rest) > 1 or not all(word.isascii() and word.isdigit() for word in rest):
            raise StartRefused("API keys: expected `key` or `key limit`")  # never quotes a key
        digest = None if name == ANY else _digest(name)
        if digest in keys:
            raise StartRefused("API keys: the same key twice")
        keys[digest] = ApiKey(digest, int(rest[0]) if rest else None)
    if not keys:
        raise StartRefused("API keys: none given")
    return tuple(keys.values())


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()


@frozen
class KnownKey:
    """Who somebody is: a key's id, safe to log, and its limit."""

    id: bytes
    limit: int | None


# -- sessions --------------------------------------------------------------------------------------


HOUSE = b""
"""Stands for all keys together."""


class SessionQuota(Protocol):
    """How many sessions each key has open."""

    def take(self, key: bytes, limit: int | None) -> bool:
        """One more; False: it has ``limit`` already."""

    def release_place(self, key: bytes) -> None: ...
    def open(self) -> dict[bytes, int]: ...


class UsedTokens(Protocol):
    """Every token opens one session."""

    def redeem(self, token: Token, now: float) -> None:
        """TokenError the second time, TokenMemoryFull."""

    def __len__(self) -> int: ...


@define(eq=False)
class LocalQuota:
    """Those of a gateway that is one process."""

    _open: Counter[bytes] = field(factory=Counter)

    def take(self, key: bytes, limit: int | None) -> bool:
        if limit is not None and self._open[key] >= limit:
            return False
        self._open[key] += 1
        return True

    def release_place(self, key: bytes) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def open(self) -> dict[bytes, int]:
        return dict(self._open)


@define(eq=False)
class Grant:
    """One admitted session; leaving the block gives its places back. ``max_duration``: seconds, the
    cap of a temporary token; ``key_id``: for usage records."""

    max_duration: float
    key_id: str
    _quota: SessionQuota
    _held: list[bytes]

    def hold(self, key: bytes, limit: int | None) -> bool:
        """A place more, given back with the others; False when there is none."""
        if not self._quota.take(key, limit):
            return False
        self._held.append(key)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the places back; again is harmless."""
        while self._held:
            self._quota.release_place(self._held.pop())


@frozen
class AccessStatistics:
    """``sessions`` by key id, in hexadecimal."""

    sessions: dict[str, int]
    redeemed: int


@define(eq=False)
class Access:
    """``mint``: None where temporary tokens are not issued."""

    keys: tuple[ApiKey, ...]
    mint: TokenMint | None = None
    quota: SessionQuota = field(factory=LocalQuota)
    used: UsedTokens = field(factory=Redeemed)
    _limits: dict[bytes, int | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limits = {key.digest[:8]: key.limit for key in self.keys if key.digest is not None}

    def open_session(self, authorization: str | None, token: str | None, now: float) -> Grant:
        """``token`` (from the query) is looked at first, then the header, which may hold a key, a
        key after ``Bearer``, or a token. ClientFault 1008, 1013 or 3009."""
        if token:
            return self._open_by_token(token, now)
        credential = _bare(authorization)
        if not credential:
            raise unauthorized("Missing Authorization header")
        if looks_like_token(credential):
            return self._open_by_token(credential, now)
        known = self.identify(credential)
        if known is None:
            raise unauthorized("Invalid API key")
        return self._grant(known.id, known.limit, math.inf)

    def identify(self, authorization: str | None) -> KnownKey | None:
        """Whose key it is. Compares with every key, in constant time, whichever matches."""
        credential = _bare(authorization)
        if not credential:
            return None
        digest = _digest(credential)
        found, wildcard = None, None
        for key in self.keys:
            if key.digest is None:
                wildcard = KnownKey(digest[:8], key.limit)
            elif hmac.compare_digest(key.digest, digest):
                found = KnownKey(digest[:8], key.limit)
        return found or wildcard

    def issue_token(self, authorization: str | None, request: TokenRequest, now: float) -> str:
        """A token for whoever has a key (a token cannot ask for another). ClientFault 1008: HTTP
        401."""
        known = self.identify(authorization)
        if self.mint is None or known is None or looks_like_token(_bare(authorization)):
            raise unauthorized(
                "Invalid API key" if authorization else "Missing Authorization header"
            )
        return self.mint.issue(request, known.id, now)

    def statistics(self) -> AccessStatistics:
        open_now = {key.hex(): n for key, n in self.quota.open().items() if key != HOUSE}
        return AccessStatistics(open_now, len(self.used))

    def _open_by_token(self, text: str, now: float) -> Grant:
        try:
            token = self._checked(text, now)
            limit = self._limit_of(token.key_id)
        except TokenError as error:
            raise unauthorized(str(error)) from None
        # A full house must not use the token up, so the place comes first.
        grant = self._grant(token.key_id, limit, token.max_session_duration)
        try:
            self.used.redeem(token, now)
        except TokenError as error:
            grant.release()
            raise unauthorized(str(error)) from None
        except TokenMemoryFull:
            grant.release()
            fault = ClientFault(CloseCode.TRY_AGAIN_LATER, cause=EndCause.OVERLOADED)
            raise fault from None
        return grant

    def _checked(self, text: str, now: float) -> Token:
        if self.mint is None:
            raise TokenError("Temporary tokens are not in use")
        return self.mint.check(text, now)

    def _limit_of(self, key_id: bytes) -> int | None:
        """TokenError when the key that asked for the token has been withdrawn since."""
        if key_id in self._limits:
            return self._limits[key_id]
        for key in self.keys:
            if key.digest is None:
                return key.limit
        raise TokenError("Invalid token")

    def _grant(self, key_id: bytes, limit: int | None, max_duration: float) -> Grant:
        grant = Grant(max_duration, key_id.hex(), self.quota, [])
        if not grant.hold(key_id, limit):
            raise too_many_sessions(SessionLimit.KEY)
        return grant


def _bare(authorization: str | None) -> str:
    """The credential alone. Clients send it without a scheme; ``Bearer`` is tolerated."""
    text = (authorization or "").strip()
    scheme, _, rest = text.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else text
