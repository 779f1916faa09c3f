"""Plain HTTP on the public port: health, readiness, tokens, metrics. An ASGI callable."""

import json
from collections.abc import Callable
from urllib.parse import parse_qsl

from attrs import define, frozen
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from ssasr.observability import Metrics


@frozen
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of(cls, status: int, content: object) -> "Response":
        return cls(status, json.dumps(content).encode())


@frozen
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


Handler = Callable[[Request], Response]


@define(eq=False)
class HttpApp:
    """Routes are exact paths; only GET and HEAD are served."""

    routes: dict[str, Handler]

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            return
        request = Request(
            scope["path"],
            dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]},
        )
        response = self.answer(scope["method"], request)
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(response.body)).encode()),
        ]
        if response.status == 426:
            headers.append((b"upgrade", b"websocket"))
        if response.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def answer(self, method: str, request: Request) -> Response:
        handler = self.routes.get(request.path)
        if handler is None:
            return Response.of(404, {"error": "Not found"})
        if method not in {"GET", "HEAD"}:
            return Response.of(405, {"error": f"{method} is not allowed here"})
        return handler(request)


def health_routes(ready: Callable[[], bool], metrics: Metrics) -> dict[str, Handler]:
    """What a gateway and an engine have in common. Live: this process answers. Ready: a session
    that came now would be served."""

    def live(_: Request) -> Response:
        return Response.of(200, {"status": "ok"})

    def is_ready(_: Request) -> Response:
        if ready():
            return Response.of(200, {"status": "ok"})
        return Response.of(503, {"status": "unavailable"})

    def exposition(_: Request) -> Response:
        return Response(200, metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")

    return {"/health": live, "/ready": is_ready, "/metrics": exposition}


def gateway_routes(ready: Callable[[], bool], metrics: Metrics) -> dict[str, Handler]:
    """Everything the public port answers besides WebSockets."""
    routes = health_routes(ready, metrics)
    routes["/v3/health"] = routes["/v3/ws/health"] = routes["/ready"]
    routes["/v3/ws"] = upgrade_required
    return routes


def upgrade_required(_: Request) -> Response:
    return Response.of(
        426, {"error": "This address speaks WebSocket; connect with ws:// or wss://"}
    )
