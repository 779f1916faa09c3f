"""Plain HTTP on the public port: health, readiness, tokens, metrics. An ASGI callable."""

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, evolve, frozen

from ssasr.gateway.auth.access import Access
from ssasr.gateway.auth.tokens import TokenRequestError, parse_token_request
from ssasr.gateway.workers.shared import ReportMissing
from ssasr.net.http_server import Receive, Scope, Send
from ssasr.protocol.faults import ClientFault
from ssasr.telemetry.metrics import Metrics

EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers; names in lower case."""

    @classmethod
    def of(cls, status: int, content: object) -> "Response":
        return cls(status, json.dumps(content).encode())


@frozen
class Request:
    path: str
    query: str
    """As it stands in the address."""
    headers: dict[str, str]


Handler = Callable[[Request], Response | Awaitable[Response]]
Exposition = Callable[[], Awaitable[bytes]]


@define(eq=False)
class HttpApp:
    """Routes are exact paths; only GET and HEAD are served."""

    routes: dict[str, Handler]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(
            scope["path"],
            scope["query_string"].decode("latin-1"),
            {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]},
        )
        response = self.answer(scope["method"], request)
        if not isinstance(response, Response):
            response = await response
        headers = [
            (b"content-type", response.content_type.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in response.headers),
        ]
        if response.status != 304:  # whose length would be that of the body it stands for
            headers.append((b"content-length", str(len(response.body)).encode()))
        if response.status == 426:
            headers.append((b"upgrade", b"websocket"))
        if response.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def answer(self, method: str, request: Request) -> Response | Awaitable[Response]:
        handler = self.routes.get(request.path)
        if handler is None:
            return Response.of(404, {"error": "Not found"})
        if method not in {"GET", "HEAD"}:
            return Response.of(405, {"error": f"{method} is not allowed here"})
        return handler(request)


def health_routes(
    ready: Callable[[], bool], metrics: Metrics, together: Exposition | None = None
) -> dict[str, Handler]:
    """What a gateway and an engine have in common. Live: this process answers. Ready: a session
    that came now would be served. ``together``: the metrics of this and other processes."""

    def live(_: Request) -> Response:
        return Response.of(200, {"status": "ok"})

    def is_ready(_: Request) -> Response:
        if ready():
            return Response.of(200, {"status": "ok"})
        return Response.of(503, {"status": "unavailable"})

    def exposition(_: Request) -> Response:
        return Response(200, metrics.exposition(), EXPOSITION_TYPE)

    async def sum_of_all(_: Request) -> Response:
        assert together is not None, "a route only where there are others"
        try:
            return Response(200, await together(), EXPOSITION_TYPE)
        except ReportMissing as missing:  # a sum without a part would be a wrong number
            return Response.of(503, {"error": str(missing)})

    shown: Handler = exposition if together is None else sum_of_all
    return {"/health": live, "/ready": is_ready, "/metrics": shown}


def engine_routes(
    ready: Callable[[], bool], metrics: Metrics, version: str | None
) -> dict[str, Handler]:
    """What an engine's port answers besides streams. Asked for a model version that is not its own,
    an engine is not there: a gateway without a load balancer learns so what it has."""
    routes = health_routes(ready, metrics)
    is_ready = routes["/ready"]

    def is_ready_for(request: Request) -> Response | Awaitable[Response]:
        asked = request.headers.get("x-model-version")
        if version is not None and asked is not None and asked != version:
            return Response.of(404, {"error": f"This engine serves {version}, not {asked}"})
        return is_ready(request)

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


def temporary_token(access: Access, wall_clock: Callable[[], float], request: Request) -> Response:
    """A token for whoever has a key. The refusals are those that the SDKs show."""
    try:
        wanted = parse_token_request(request.query)
        authorization = request.headers.get("authorization")
        token = access.issue_token(authorization, wanted, wall_clock())
    except TokenRequestError as error:
        return Response.of(400, {"error": str(error)})
    except ClientFault as fault:
        return Response.of(401, {"error": fault.text})
    answer = Response.of(200, {"token": token, "expires_in_seconds": wanted.expires_in})
    return evolve(answer, headers=(("cache-control", "no-store"),))


def upgrade_required(_: Request) -> Response:
    return Response.of(
        426, {"error": "This address speaks WebSocket; connect with ws:// or wss://"}
    )
