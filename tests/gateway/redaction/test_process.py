"""The detector's process, with the model of names that the extra brings."""

import pytest
import trio

from ssasr.errors import StartRefused
from ssasr.gateway.redaction.model import DEFAULT_MODEL
from ssasr.gateway.redaction.policies import policies_of
from ssasr.gateway.redaction.process import DetectorLost, detector_process


@pytest.mark.slow
async def test_finds_and_ends_with_its_gateway():
    words = ["Hello,", "Angela", "Merkel", "flew", "to", "Paris", "with", "my", "mail", "a@b.com"]
    async with detector_process(DEFAULT_MODEL) as detector:
        results = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):

                async def one():
                    results.append(await detector.find(words))

                nursery.start_soon(one)
        assert results[0] == results[1] == results[2]
        asked = frozenset({"person_name", "location", "email_address"})
        hidden = policies_of(results[0], asked, len(words))
        assert hidden[1:3] == ["person_name"] * 2
        assert hidden[5] == "location"
        assert hidden[9] == "email_address"
        assert await detector.find([]) == []
        process = detector._process
    assert process.returncode is not None


@pytest.mark.slow
async def test_its_death_is_the_gateways():
    with pytest.raises(DetectorLost):
        async with detector_process(DEFAULT_MODEL) as detector:
            detector._process.kill()
            await trio.sleep_forever()


@pytest.mark.slow
async def test_an_unknown_model_refuses_the_start():
    with pytest.raises(StartRefused, match="there is no such model"):
        async with detector_process("no-such-model"):
            pass
