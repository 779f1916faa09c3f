"""The recogniser over slots against the contract that every recogniser meets."""

import pytest

from tests.contracts.recognizer import check_recognizer
from tests.engine.fastconformer import reference


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model that is silent in silence, which not every random one is."""
    return reference.save(reference.small_model(seed=4), tmp_path_factory.mktemp("quiet"))


@pytest.mark.slow
@pytest.mark.parametrize(("chunk_frames", "largest"), [(1, 64), (2, 2)])
def test_contract(directory, make_recognizer, chunk_frames, largest):
    recognizer = make_recognizer(directory, chunk_frames, slots=60, rewind=80, largest=largest)
    clips = [
        reference.utterance(seed, samples)
        for seed, samples in ((1, 80_000), (2, 50_001), (3, 64_100))
    ]
    check_recognizer(lambda: recognizer, clips)
