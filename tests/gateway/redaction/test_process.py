"""The detector's process, with the model of names that the extra brings."""

import signal

import pytest
import trio

from ssasr.errors import StartRefused
from ssasr.gateway.redaction import process
from ssasr.gateway.redaction.policies import policies_of
from ssasr.gateway.redaction.process import DetectorLost, detector_process
from ssasr.models import catalogue

ASKED = frozenset({"person_name", "location", "email_address"})


@pytest.fixture(scope="module")
def folder():
    return catalogue.resolve("en-core-web-sm", pull=False).directory


@pytest.mark.slow
async def test_finds_and_ends_with_its_gateway(folder):
    words = ["Hello,", "Angela", "Merkel", "flew", "to", "Paris", "with", "my", "mail", "a@b.com"]
    async with detector_process(folder) as detector:
        results = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):

                async def one():
                    results.append(await detector.find(words, ASKED))

                nursery.start_soon(one)
        assert results[0] == results[1] == results[2]
        hidden = policies_of(results[0], ASKED, len(words))
        assert hidden[1:3] == ["person_name"] * 2
        assert hidden[5] == "location"
        assert hidden[9] == "email_address"
        assert await detector.find([], ASKED) == []
        process = detector._process
    assert process.returncode is not None


@pytest.mark.slow
async def test_its_death_is_the_gateways(folder):
    with pytest.raises(DetectorLost):
        async with detector_process(folder) as detector:
            detector._process.kill()
            await trio.sleep_forever()


@pytest.mark.slow
async def test_one_that_hangs_counts_as_dead(folder, monkeypatch):
    """Who waits for its answer, and who cannot even ask since its pipe is full, is freed."""
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.05)
    with pytest.raises(DetectorLost), trio.fail_after(60):
        async with detector_process(folder) as detector, trio.open_nursery() as nursery:
            detector._process.send_signal(signal.SIGSTOP)
            for words in (1, 100_000):
                nursery.start_soon(detector.find, ["word"] * words, ASKED)


@pytest.mark.slow
async def test_a_folder_without_a_model_refuses_the_start(tmp_path):
    with pytest.raises(StartRefused, match="no spaCy pipeline"):
        async with detector_process(tmp_path):
            pass


@pytest.mark.slow
async def test_a_package_that_a_model_needs_is_named(tmp_path):
    for name in ("gliner_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(StartRefused, match="needs gliner, which is not installed"):
        async with detector_process(tmp_path):
            pass
