"""An engine server in the test's own event loop, on a real port, and a client for it."""

from contextlib import asynccontextmanager
from functools import partial

import trio

from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import InlineModel
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.engine.server import EngineServer
from ssasr.gateway.http import engine_routes, http_app
from ssasr.routing.engine_client import Address, EngineClient
from ssasr.telemetry.metrics import Metrics

VERSION = "en-default"


@asynccontextmanager
async def engine_server(
    *, max_streams=2, version=VERSION, drain_seconds=5.0, loaded=True, recognizer=None
):
    """The server and a client. ``loaded``: False leaves it starting for ever."""
    metrics = Metrics()
    server = EngineServer(metrics, version, drain_seconds)
    app = http_app(engine_routes(server.is_ready, metrics, version))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(server.run, app, "127.0.0.1", 0))
        if loaded:
            server.host = EngineHost(
                recognizer or ScriptedRecognizer(), InlineModel(), metrics, max_streams=max_streams
            )
            await nursery.start(server.host.run)
        yield server, EngineClient(Address("127.0.0.1", port), [VERSION], required=True)
        nursery.cancel_scope.cancel()
