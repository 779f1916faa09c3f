"""The demo page at ``/``: files of the package, served under exact paths.

The page has no privilege of its own. It asks for a temporary token as any client may
(``GET /v3/token``), first with the key that everybody knows (``self-hosted``) and, where the
operator has chosen keys, with the one that the visitor types in. So switching it on opens nothing
that is not open already, and there are no limits to keep but those of the keys.

Nothing it loads comes from anywhere else: the content security policy says so to the browser.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ssasr import __version__
from ssasr.gateway.http import Handler
from ssasr.protocol.speech_models import SPEECH_MODELS, EngineKind

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = {
    "/" if name == "index.html" else f"/demo/{name}": (name, MEDIA_TYPES[Path(name).suffix])
    for name in sorted(file.name for file in (files("ssasr") / "web").iterdir())
}
"""Path to file in ``ssasr/web`` and media type; any other path is 404."""
COMMON = {
    # Ask each time whether the file is still the same (ETag): an upgrade shows at once.
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
PERMISSIONS = "microphone=(self), camera=(), geolocation=(), payment=(), usb=()"
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?![\d.]))")


@frozen
class Asset:
    """One file, read once."""

    body: bytes
    packed: bytes
    """The same through gzip."""
    media_type: str
    etag: str

    def answer(
        self, request: Request, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Response:
        every = {**COMMON, "etag": self.etag, "vary": "accept-encoding", **headers}
        known = request.headers.get("if-none-match", "")
        if self.etag in (tag.strip() for tag in known.split(",")):
            return Response(b"", 304, every, self.media_type)
        if _GZIP.search(request.headers.get("accept-encoding", "")):
            every["content-encoding"] = "gzip"
            return Response(self.packed, 200, every, self.media_type)
        return Response(self.body, 200, every, self.media_type)


def load_asset(name: str, media_type: str) -> Asset:
    body = (files("ssasr") / "web" / name).read_bytes()
    packed = gzip.compress(body, mtime=0)
    return Asset(body, packed, media_type, f'W/"{hashlib.sha256(body).hexdigest()[:32]}"')


def content_security_policy(host: str) -> str:
    """``host``: the request's Host header. Its WebSocket addresses are named one by one because
    not every browser counts them as ``'self'``; a host that is not one is left out."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
        f"img-src 'self'; connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def page_routes(
    engines: Iterable[EngineKind], redaction: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> dict[str, Handler]:
    """Every path of the page. ``engines``: what is behind this gateway, for the list of models.
    ``redaction``: the policies that it can detect, by language."""
    routes: dict[str, Handler] = {
        path: _file(path, load_asset(*entry)) for path, entry in FILES.items()
    }
    routes["/demo/server.json"] = _description(tuple(engines), redaction)
    return routes


def _file(path: str, asset: Asset) -> Handler:
    async def answer(request: Request) -> Response:
        if path != "/":
            return asset.answer(request)
        policy = content_security_policy(request.headers.get("host", ""))
        return asset.answer(
            request, {"content-security-policy": policy, "permissions-policy": PERMISSIONS}
        )

    return answer


def _description(
    engines: tuple[EngineKind, ...], redaction: Mapping[str, Iterable[str]]
) -> Handler:
    models = [name for name, model in SPEECH_MODELS.items() if model.engine in engines]
    policies = {language: list(names) for language, names in redaction.items()}
    content = {"version": __version__, "speech_models": models, "redaction": policies}

    async def answer(_: Request) -> Response:
        return JSONResponse(content, headers=COMMON)

    return answer
