"""An optional licence file, for those who ship this software to customers of their own.

Without a licence key nothing is checked and none of this runs. With one (the public half of the
vendor's Ed25519 pair, PEM) a licence signed by it is needed: a JWT (``EdDSA``) with ``aud``
"ssasr", ``exp``, optionally ``sub`` (the customer) and ``max_sessions``. It is verified offline;
nobody is called.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ssasr.errors import StartRefused

AUDIENCE = "ssasr"


@frozen
class Licence:
    """``expires``: Unix seconds. ``max_sessions``: of each gateway, or None."""

    customer: str
    expires: int
    max_sessions: int | None

    def limit(self, configured: int, now: float) -> int:
        """Sessions that may be open. After the end no new one may; those there are go on."""
        if now >= self.expires:
            return 0
        return configured if self.max_sessions is None else min(configured, self.max_sessions)

    def state(self, now: float) -> dict[str, object]:
        """For ``GET /v1/status``."""
        return {
            "state": "valid" if now < self.expires else "expired",
            "customer": self.customer,
            "expires": self.expires,
            "max_sessions": self.max_sessions,
        }


def read_licence(licence: Path, key: Path) -> Licence:
    """Raises StartRefused: unreadable, not signed by ``key``, expired, or not for us."""
    try:
        import jwt
    except ImportError as error:
        raise StartRefused("a licence needs the extra: pip install 'ssasr[licence]'") from error
    try:
        token, public = licence.read_text().strip(), key.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the licence: {error}") from error
    try:
        claims = jwt.decode(
            token, public, algorithms=["EdDSA"], audience=AUDIENCE,
            options={"require": ["exp", "aud"]},
        )  # fmt: skip
    except jwt.ExpiredSignatureError as error:
        raise StartRefused(f"the licence {licence} has expired") from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise StartRefused(f"the licence {licence} is not valid: {error}") from error
    return from_claims(claims)


def from_claims(claims: Mapping[str, Any]) -> Licence:
    """Raises StartRefused."""
    most = claims.get("max_sessions")
    if most is not None and (type(most) is not int or most < 1):
        raise StartRefused("the licence's max_sessions is not a positive number")
    return Licence(str(claims.get("sub", "")), int(claims["exp"]), most)
