"""An HTTP server that takes, refuses or breaks off what is posted to it, as a script says."""

from contextlib import suppress

import h11
import trio
from attrs import define, field


@define
class Posted:
    path: str
    headers: dict
    body: bytes


@define(eq=False)
class CollectingServer:
    """``script``: the statuses of the next answers, 0 for none; then 204. ``answer``: the body."""

    script: list = field(factory=list)
    answer: bytes = b""
    posts: list = field(factory=list)
    """All that came, taken or not."""
    taken: list = field(factory=list)
    port: int = 0
    came: trio.Event = field(factory=trio.Event)
    release: trio.Event | None = None
    """While this is not set, nothing is answered."""

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self.serve, [listener], task_status=task_status)

    async def serve(self, stream):
        with suppress(trio.BrokenResourceError):  # the client was cancelled
            await self._serve(stream)

    async def _serve(self, stream):
        async with stream:
            connection = h11.Connection(h11.SERVER)
            posted = Posted("", {}, b"")
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    posted.path = event.target.decode()
                    posted.headers = {k.decode(): v.decode() for k, v in event.headers}
                elif isinstance(event, h11.Data):
                    posted.body += bytes(event.data)
                else:
                    break
            await self._answer(stream, connection, posted)

    async def _answer(self, stream, connection, posted):
        self.posts.append(posted)
        self.came.set()
        self.came = trio.Event()
        if self.release is not None:
            await self.release.wait()
        status = self.script.pop(0) if self.script else 200
        if 200 <= status < 300:
            self.taken.append(posted)
        if status:
            headers = [("Content-Length", str(len(self.answer))), ("Location", "/elsewhere")]
            answer = h11.Response(status_code=status, headers=headers)
            data = connection.send(answer) + connection.send(h11.Data(data=self.answer))
            await stream.send_all(data)
            with trio.move_on_after(1):  # until the client has read it
                await stream.receive_some()

    async def wait_posts(self, count):
        with trio.fail_after(60):
            while len(self.posts) < count:
                await self.came.wait()
