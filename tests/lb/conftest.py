"""Stub engines on loopback addresses of their own, a name server, and nginx in front of them."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from attrs import define, field
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketRequest,
    serve_websocket,
    wrap_client_stream,
)

from tests.harness.name_server import NameServer
from tests.harness.nginx import Balancer, Nginx, run_nginx

PORT = 21_951 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
"""Every stub listens here, each on an address of its own, as replicas behind one name do."""
VERSIONS = {"english.test": "en-default", "multilingual.test": "ml-default"}


@define(eq=False)
class StubEngine:
    """Takes streams until it is full; says who it is, then echoes."""

    address: str
    room: int = 1_000
    silent: bool = False
    """Accepts connections and never answers, as a stopped process does."""
    streams: int = 0
    handshakes: int = 0

    async def run(self, *, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        serve = partial(serve_websocket, self._serve, self.address, PORT, None)
        await serve(task_status=task_status)

    async def _serve(self, request: WebSocketRequest) -> None:
        self.handshakes += 1
        if self.silent:
            await trio.sleep_forever()
        if self.streams >= self.room:
            headers = [(b"X-Ssasr-Refusal", b"full")]
            return await request.reject(503, extra_headers=headers, body=b"full")
        self.streams += 1
        try:
            websocket = await request.accept()
            await websocket.send_message(self.address)
            with suppress(ConnectionClosed):
                while True:
                    await websocket.send_message(await websocket.get_message())
        finally:
            self.streams -= 1


@define(eq=False)
class Cluster:
    """What a test holds."""

    nginx: Nginx
    names: NameServer
    nursery: trio.Nursery
    engines: dict[str, StubEngine] = field(factory=dict)

    @asynccontextmanager
    async def stream(
        self, version: str | None = "en-default", path: str = "/v1/stream", attempt: int = 0
    ):
        """A WebSocket through nginx, and the address of the engine that took it."""
        host, _, port = self.nginx.url.removeprefix("http://").partition(":")
        headers = [] if version is None else [(b"X-Model-Version", version.encode())]
        if attempt:
            headers.append((b"X-Ssasr-Attempt", b"%d" % attempt))
        with trio.fail_after(60):
            # Our own socket: trio-websocket leaves its open when the handshake is refused.
            async with await trio.open_tcp_stream(host, int(port)) as tcp:
                async with trio.open_nursery() as nursery:
                    websocket = await wrap_client_stream(
                        nursery, tcp, host, path, extra_headers=headers
                    )
                    yield websocket, await websocket.get_message()
                    await websocket.aclose()

    async def refusal(self, version: str | None, path: str = "/v1/stream") -> ConnectionRejected:
        """The response to a handshake that is refused."""
        with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
            async with self.stream(version, path):
                pass
        return caught.value.exceptions[0]

    async def get(self, path: str, version: str | None = None) -> httpx.Response:
        headers = {} if version is None else {"X-Model-Version": version}
        async with httpx.AsyncClient() as client:
            return await client.get(self.nginx.url + path, headers=headers)

    async def until(self, condition) -> None:
        """Wait for what nginx does on its own time; fails after 60 s."""
        with trio.fail_after(60):
            while not condition():  # noqa: ASYNC110  nginx tells nobody
                await trio.sleep(0.02)

    async def until_resolved(self, version: str) -> None:
        """nginx knows the addresses of the version's engines, whatever they answer."""
        with trio.fail_after(60):
            while True:
                await self.get("/health", version)
                lines = [json.loads(line) for line in self.nginx.access_log().splitlines()]
                if lines and lines[-1]["engines"].startswith("127."):
                    return  # nginx writes the line after the answer, so there may be none yet
                await trio.sleep(0.02)

    def log(self) -> list[dict]:
        """The requests of the test, without those of ``until_resolved``."""
        lines = [json.loads(line) for line in self.nginx.access_log().splitlines()]
        return [line for line in lines if line["path"] != "/health"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path


async def free_port() -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    for listener in listeners:
        await listener.aclose()
    return port


@asynccontextmanager
async def cluster(
    run_dir: Path, engines: list[StubEngine], names: dict[str, list[str]], **settings
) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        server = NameServer(names)
        resolvers = await nursery.start(server.run)
        for engine in engines:
            await nursery.start(engine.run)
        balancer = Balancer(
            run_dir,
            f"127.0.0.1:{await free_port()}",
            english=f"english.test:{PORT}",
            multilingual=f"multilingual.test:{PORT}",
            resolvers=resolvers,
            **settings,
        )
        async with run_nginx(balancer) as nginx:
            made = Cluster(nginx, server, nursery, {e.address: e for e in engines})
            for version in VERSIONS.keys() & names.keys():
                await made.until_resolved(VERSIONS[version])
            yield made
        nursery.cancel_scope.cancel()
