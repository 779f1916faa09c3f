"""Real engines behind a real nginx: who is full, or hangs, is passed over; only when all are is the
client rejected."""

import json
from contextlib import AsyncExitStack

import pytest
import trio

from tests.harness.clients import connect, read_all
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.processes import halted

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

ROOM = 2
SCRIPTED = ("--model", "english", "--engine-kind", "scripted", "--max-streams", str(ROOM))


async def test_a_full_engine_is_passed_over_and_streams_beyond_capacity_are_rejected(tmp_path):
    config = ClusterConfig(tmp_path, engines=2, engine_options=SCRIPTED)
    with trio.fail_after(100):
        async with run_cluster(config) as cluster, AsyncExitStack() as open_sessions:
            for _ in range(2 * ROOM):
                websocket = await open_sessions.enter_async_context(
                    connect(cluster.url, sample_rate=16_000)
                )
                assert json.loads(await websocket.get_message())["type"] == "Begin"
            async with connect(cluster.url, sample_rate=16_000) as one_too_many:
                transcript = await read_all(one_too_many)
            assert transcript.close_code == 3009
            assert [message["type"] for message in transcript.messages] == ["Error"]


async def test_while_one_engine_hangs_new_sessions_go_to_the_other(tmp_path):
    """It goes on taking connections, and as few streams are there, nginx sends it the next one."""
    async with run_cluster(ClusterConfig(tmp_path, engines=2)) as cluster:
        with halted(cluster.engines[0].process), trio.fail_after(100):
            for _ in range(4):
                async with connect(cluster.url, sample_rate=16_000) as websocket:
                    assert json.loads(await websocket.get_message())["type"] == "Begin"
