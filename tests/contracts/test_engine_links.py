"""The contract of engine links: over memory, over sockets, and in the same process."""

from contextlib import asynccontextmanager

import pytest
import trio

from ssasr.cli.processes.all_in_one import LocalEngines
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import InlineModel
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.routing.failover import ResilientEngines
from ssasr.telemetry.metrics import Metrics
from tests.contracts.engine_link import VERSION, check_engine_link
from tests.harness.engines import engine_server
from tests.harness.memory_links import SharedMemoryEngines


@asynccontextmanager
async def running_host():
    host = EngineHost(ScriptedRecognizer(), InlineModel(), Metrics(), max_streams=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        yield host
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def in_process():
    async with running_host() as host:
        yield LocalEngines({VERSION: host}), host


@asynccontextmanager
async def over_memory():
    async with running_host() as host:
        yield SharedMemoryEngines(host), host


@asynccontextmanager
async def over_sockets():
    async with engine_server(max_streams=2) as (server, client):
        yield client, server.host


@asynccontextmanager
async def resilient():
    async with over_sockets() as (client, host):
        yield ResilientEngines(client, Metrics()), host


@pytest.mark.parametrize("make_pair", [in_process, over_memory, over_sockets])
async def test_contract(make_pair):
    await check_engine_link(make_pair)


async def test_resilient_streams_are_streams():
    """All of the contract but Draining, which a resilient stream keeps to itself."""
    from tests.contracts.engine_link import _admits, _lets_go, _replays, _streams

    for check in (_streams, _replays, _admits, _lets_go):
        async with resilient() as (engines, host):
            with trio.fail_after(20):
                await check(engines, host)
