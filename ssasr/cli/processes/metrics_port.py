"""Metrics on a port of their own, so that a firewall can tell who reads them from who is served."""

from functools import partial

import trio

from ssasr.gateway.http import Handler, http_app
from ssasr.net.handshake import UpgradeRequest
from ssasr.net.listener import HttpListener
from ssasr.telemetry.logs import get_logger

MOST_CONNECTIONS = 64

log = get_logger(__name__)


async def serve_metrics(
    shown: Handler,
    host: str,
    port: int,
    *,
    share_port: bool = False,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """For ever. Started with the port that was bound. Raises StartRefused."""
    listener = HttpListener(
        http_app({"/metrics": shown}),
        _no_websocket,
        most_open=MOST_CONNECTIONS,
    )
    async with trio.open_nursery() as nursery:
        serve = partial(
            listener.run,
            host,
            port,
            None,
            trio.sleep_forever,
            leave_within=0.0,
            share_port=share_port,
        )
        bound = await nursery.start(serve)
        log.info("metrics", host=host, port=bound)
        task_status.started(bound)


async def _no_websocket(request: UpgradeRequest, _: trio.Nursery) -> None:
    await request.reject(404, b"Not found\n")
