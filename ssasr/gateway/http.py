"""Plain HTTP on the public port: health, readiness, tokens, metrics, as Starlette's routes."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ssasr.gateway.auth.access import Access
from ssasr.gateway.auth.tokens import TokenRequestError, parse_token_request
from ssasr.gateway.openai.errors import ApiError
from ssasr.gateway.workers.shared import ReportMissing
from ssasr.net.http_server import AsgiApp
from ssasr.protocol.faults import ClientFault
from ssasr.telemetry.metrics import Metrics

EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CODES = {404: "unknown_url", 405: "method_not_allowed"}

Handler = Callable[[Request], Awaitable[Response]]
Exposition = Callable[[], Awaitable[bytes]]


def http_app(pages: Mapping[str, Handler], routes: Sequence[BaseRoute] = ()) -> AsgiApp:
    """``pages``: what exact paths answer to GET and HEAD."""
    every = [*(Route(path, handler) for path, handler in pages.items()), *routes]
    app = Starlette(routes=every, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False  # the paths that come have none at their end
    return cast(AsgiApp, app)


async def _refuse(request: Request, refused: Exception) -> Response:
    """A path that is none, or not with that method; as OpenAI's clients read it, where they ask."""
    assert isinstance(refused, HTTPException), "what it was registered for"
    status = refused.status_code
    texts = {404: "Not found", 405: f"{request.method} is not allowed here"}
    text = texts.get(status, refused.detail)
    body: dict[str, object] = {"error": text}
    if request.url.path.startswith("/v1/"):
        body = ApiError(status, CODES.get(status, "invalid_request"), text).body()
    return JSONResponse(body, status, refused.headers)


def health_routes(
    ready: Callable[[], bool], metrics: Metrics, together: Exposition | None = None
) -> dict[str, Handler]:
    """Routes of gateway and engine alike. Live: this process answers. Ready: a session
    that came now would be served. ``together``: the metrics of this and other processes."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def is_ready(_: Request) -> Response:
        if ready():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable"}, 503)

    async def exposition(_: Request) -> Response:
        try:
            content = metrics.exposition() if together is None else await together()
        except ReportMissing as missing:  # a sum without a part would be a wrong number
            return JSONResponse({"error": str(missing)}, 503)
        return Response(content, media_type=EXPOSITION_TYPE)

    return {"/health": live, "/ready": is_ready, "/metrics": exposition}


def engine_routes(
    ready: Callable[[], bool], metrics: Metrics, version: str | None
) -> dict[str, Handler]:
    """What an engine's port answers besides streams. Asked for a model version that is not its own,
    an engine is not there: a gateway without a load balancer learns so what it has."""
    routes = health_routes(ready, metrics)
    is_ready = routes["/ready"]

    async def is_ready_for(request: Request) -> Response:
        asked = request.headers.get("x-model-version")
        if version is not None and asked is not None and asked != version:
            return JSONResponse({"error": f"This engine serves {version}, not {asked}"}, 404)
        return await is_ready(request)

    routes["/ready"] = is_ready_for
    return routes


def gateway_routes(
    ready: Callable[[], bool],
    metrics: Metrics,
    access: Access,
    wall_clock: Callable[[], float] = time.time,
    together: Exposition | None = None,
) -> dict[str, Handler]:
    """Everything the public port answers besides WebSockets and the demo page."""
    routes = health_routes(ready, metrics, together)
    routes["/v3/health"] = routes["/v3/ws/health"] = routes["/ready"]
    routes["/v3/ws"] = upgrade_required
    routes["/v3/token"] = partial(temporary_token, access, wall_clock)
    return routes


async def temporary_token(
    access: Access, wall_clock: Callable[[], float], request: Request
) -> Response:
    """A temporary token in exchange for a key. The refusals are those that the SDKs show."""
    try:
        wanted = parse_token_request(query_of(request))
        authorization = request.headers.get("authorization")
        token = access.issue_token(authorization, wanted, wall_clock())
    except TokenRequestError as error:
        return JSONResponse({"error": str(error)}, 400)
    except ClientFault as fault:
        return JSONResponse({"error": fault.text}, 401)
    answer = {"token": token, "expires_in_seconds": wanted.expires_in}
    return JSONResponse(answer, headers={"cache-control": "no-store"})


async def upgrade_required(_: Request) -> Response:
    text = "This address speaks WebSocket; connect with ws:// or wss://"
    return JSONResponse({"error": text}, 426, {"upgrade": "websocket"})


def query_of(request: Request) -> str:
    """As it stands in the address."""
    return str(request.scope["query_string"].decode("latin-1"))
