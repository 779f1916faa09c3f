"""What the log says of a session."""

import numpy as np
import pytest
import structlog
import trio

from tests.harness.clients import converse, speech_like


async def lines_of(served, wanted, samples, **query):
    """Of the event ``wanted``, once there is one."""
    with structlog.testing.capture_logs() as logs:
        await converse(served.url, samples, sample_rate=16_000, **query)
        with trio.fail_after(60):
            while not (found := [entry for entry in logs if entry["event"] == wanted]):
                await trio.sleep(0.01)
    return found, logs


async def test_two_lines_tie_a_session_together(served):
    (ended,), logs = await lines_of(served, "session ended", speech_like(6.0, pause_every=2.0))
    (begun,) = [entry for entry in logs if entry["event"] == "session begun"]
    assert begun["session"] == ended["session"]
    for entry in (begun, ended):
        assert (entry["version"], entry["peer"]) == ("en-default", "127.0.0.1")
        assert len(entry["key"]) >= 8
    assert (ended["cause"], ended["code"], ended["failovers"]) == ("terminated", 1000, 0)
    assert (ended["audio_seconds"], ended["turns"]) == (6.0, 2)
    assert ended["engine"] == "english"
    assert ended["seconds"] > 0.0


async def test_addresses_can_be_left_out(served):
    served.gateway.session_log.peers = False
    _, logs = await lines_of(served, "session ended", np.zeros(1_600, np.int16))
    assert not any("peer" in entry for entry in logs)


@pytest.mark.parametrize(
    ("query", "key", "cause"),
    [({}, "wrong", "unauthorized"), ({"encoding": "gsm"}, "self-hosted", "invalid_parameter")],
)
async def test_refusals_are_logged_with_their_cause(served, query, key, cause):
    silence = np.zeros(1_600, np.int16)
    found, _ = await lines_of(served, "session refused", silence, key=key, **query)
    assert [(entry["count"], entry["peer"]) for entry in found] == [(1, "127.0.0.1")]
    assert found[0]["code"] in {1008, 3006}
    assert "wrong" not in str(found)
