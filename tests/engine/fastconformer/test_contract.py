"""The recogniser over slots against the contract that every recogniser meets."""

import pytest

from ssasr.engine.kernels import int8_limit
from tests.contracts.recognizer import check_recognizer
from tests.engine.fastconformer import reference

needs_int8 = pytest.mark.skipif(not int8_limit(), reason="the processor has no 8-bit products")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model that is silent in silence, which not every random one is."""
    return reference.save(reference.small_model(seed=4), tmp_path_factory.mktemp("quiet"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk_frames", "largest", "int8"),
    [(1, 64, False), pytest.param(2, 2, True, marks=needs_int8)],
)
def test_contract(directory, make_recognizer, chunk_frames, largest, int8):
    recognizer = make_recognizer(
        directory, chunk_frames, slots=60, rewind=80, largest=largest, int8=int8
    )
    clips = [
        reference.utterance(seed, samples)
        for seed, samples in ((1, 80_000), (2, 50_001), (3, 64_100))
    ]
    check_recognizer(lambda: recognizer, clips)
