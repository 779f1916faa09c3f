"""A client that sends as fast as it is taken: the engine is never left with more than it can go
back over."""

import pytest
import trio

from tests.harness.clients import converse, speech_like

pytestmark = pytest.mark.slow


async def test_an_engine_far_ahead_of_the_session_can_still_be_asked_for_the_end_of_a_turn(served):
    """What was answered about audio after the end of a segment, before the engine knew the end,
    once counted as acknowledged. Each turn then let the client come further ahead, until the end
    of a turn lay behind what an engine keeps."""
    samples = speech_like(100, pause_every=3.1, pause=1.5)
    with trio.fail_after(60):
        transcript = await converse(served.url, samples)
    assert transcript.close_code == 1000
    assert len(transcript.finals) == 22
