"""One request to an ASGI callable, without a server."""

import json

import trio
from attrs import frozen


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


async def ask(app, path, query="", *, method="GET", headers=None, body=b""):
    """``body``: bytes, or pieces of them; None at its end stands for a client that leaves."""
    sent = []
    pieces = [body] if isinstance(body, bytes) else list(body)
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }

    async def receive():
        await trio.lowlevel.checkpoint()
        if pieces and pieces[0] is not None:
            data = pieces.pop(0)
            return {"type": "http.request", "body": data, "more_body": bool(pieces)}
        if not pieces:
            await trio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    await app(scope, receive, send)
    if not sent:
        return None
    named = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], named, b"".join(event["body"] for event in sent[1:]))
