"""Who may open a session: keys, temporary tokens, and how many sessions at once per key.

Keys come as text: one a line or separated by commas, optionally followed by the most sessions that
the key may have open. ``*`` stands for any credential that is not empty. No credential is kept,
logged or echoed: a key is known by its digest, and outside this module by its id.
"""

import hashlib
import hmac
import math
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from attrs import define, field, frozen

from ssasr.errors import SsasrError, StartRefused
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


def overloaded() -> ClientFault:
    """1013: it will do later."""
    return ClientFault(CloseCode.TRY_AGAIN_LATER, cause=EndCause.OVERLOADED)


class QuotaBusy(SsasrError):
    """The places cannot be counted now."""


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
        if not name.isprintable():
            raise StartRefused("API keys: a key with characters that no header may hold")
        if len(rest) > 1 or not all(word.isascii() and word.isdigit() for word in rest):
            raise StartRefused("API keys: expected `key` or `key limit`")  # never quotes a key
        digest = None if name == ANY else _digest(name)
        if digest in keys:
            raise StartRefused("API keys: the same key twice")
        keys[digest] = ApiKey(digest, int(rest[0]) if rest else None)
    if not keys:
        raise StartRefused("API keys: none given")
    return tuple(keys.values())


def read_key_file(path: Path) -> str:
    """As ``parse_keys`` takes it; some editors begin a file with a byte order mark. Raises
    StartRefused."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the key file {path}: {error}") from error


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()


@frozen
class KnownKey:
    """Who somebody is: an id, safe to log, and a limit, which holds for all of one ``group``."""

    id: bytes
    limit: int | None
    group: bytes


# -- sessions --------------------------------------------------------------------------------------


ALL_KEYS = b""
"""Stands for all keys together."""
WILDCARD_GROUP = b"*"
"""Stands for all credentials that only ``*`` lets in: a limit for each that somebody makes up would
limit nobody."""


class SessionQuota(Protocol):
    """How many sessions each key has open."""

    def take(self, key: bytes, limit: int | None) -> bool:
        """One more; False: it has ``limit`` already. Raises QuotaBusy."""

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
        """A place more, given back with the others; False when there is none. ClientFault 1013."""
        try:
            if not self._quota.take(key, limit):
                return False
        except QuotaBusy:
            raise overloaded() from None
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


@define(eq=False)
class Access:
    """``mint``: None where temporary tokens are not issued."""

    keys: tuple[ApiKey, ...]
    mint: TokenMint | None = None
    quota: SessionQuota = field(factory=LocalQuota)
    used: UsedTokens = field(factory=Redeemed)
    _limits: dict[bytes, int | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.replace_keys(self.keys)

    def replace_keys(self, keys: tuple[ApiKey, ...]) -> None:
        """From now on; sessions that are open stay."""
        self.keys = keys
        self._limits = {key.digest[:8]: key.limit for key in self.keys if key.digest is not None}

    def is_open(self) -> bool:
        """Whether a key that everybody knows opens sessions."""
        known = (None, _digest(DEFAULT_KEYS))
        return any(key.digest in known for key in self.keys)

    def open_session(self, authorization: str | None, token: str | None, now: float) -> Grant:
        """``token`` (from the query) is looked at first, then the header, which may hold a key, a
        key after ``Bearer``, or a token. ClientFault 1008, 1013 or 3009."""
        if token:
            return self._open_by_token(token, now)
        credential = bare(authorization)
        if not credential:
            raise unauthorized("Missing Authorization header")
        if looks_like_token(credential):
            return self._open_by_token(credential, now)
        known = self.identify(credential)
        if known is None:
            raise unauthorized("Invalid API key")
        return self._grant(known, math.inf)

    def identify(self, authorization: str | None) -> KnownKey | None:
        """Whose key it is. Compares with every key, in constant time, whichever matches."""
        credential = bare(authorization)
        if not credential:
            return None
        digest = _digest(credential)
        found, wildcard = None, None
        for key in self.keys:
            if key.digest is None:
                wildcard = KnownKey(digest[:8], key.limit, WILDCARD_GROUP)
            elif hmac.compare_digest(key.digest, digest):
                found = KnownKey(digest[:8], key.limit, digest[:8])
        return found or wildcard

    def issue_token(self, authorization: str | None, request: TokenRequest, now: float) -> str:
        """A token for whoever has a key (a token cannot ask for another). ClientFault 1008: HTTP
        401."""
        known = self.identify(authorization)
        if self.mint is None or known is None or looks_like_token(bare(authorization)):
            raise unauthorized(
                "Invalid API key" if authorization else "Missing Authorization header"
            )
        return self.mint.issue(request, known.id, now)

    def _open_by_token(self, text: str, now: float) -> Grant:
        try:
            token = self._checked(text, now)
            known = self._known_by_id(token.key_id)
        except TokenError as error:
            raise unauthorized(str(error)) from None
        # A full server must not use the token up, so the place comes first.
        grant = self._grant(known, token.max_session_duration)
        try:
            self.used.redeem(token, now)
        except BaseException as error:
            grant.release()  # whatever it was
            match error:
                case TokenError():
                    raise unauthorized(str(error)) from None
                case TokenMemoryFull() | QuotaBusy():
                    raise overloaded() from None
            raise
        return grant

    def _checked(self, text: str, now: float) -> Token:
        if self.mint is None:
            raise TokenError("Temporary tokens are not in use")
        return self.mint.check(text, now)

    def _known_by_id(self, key_id: bytes) -> KnownKey:
        """TokenError when the key that asked for the token has been withdrawn since."""
        if key_id in self._limits:
            return KnownKey(key_id, self._limits[key_id], key_id)
        for key in self.keys:
            if key.digest is None:
                return KnownKey(key_id, key.limit, WILDCARD_GROUP)
        raise TokenError("Invalid token")

    def _grant(self, known: KnownKey, max_duration: float) -> Grant:
        grant = Grant(max_duration, known.id.hex(), self.quota, [])
        if not grant.hold(known.group, known.limit):
            raise too_many_sessions(SessionLimit.KEY)
        return grant


def bare(authorization: str | None) -> str:
    """The credential alone. Clients send it without a scheme; ``Bearer`` is tolerated."""
    text = (authorization or "").strip()
    with suppress(UnicodeError):  # headers are read as Latin-1; what somebody typed is UTF-8
        text = text.encode("latin-1").decode()
    scheme, _, rest = text.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else text
