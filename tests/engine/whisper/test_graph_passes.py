"""Passes of fixed sizes, replayed, say what plain ones do."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssasr.engine.graphs import CudaGraphRecorder
from ssasr.engine.whisper.decoding import Decoding, Request
from ssasr.engine.whisper.graph_passes import GraphPasses
from tests.engine.recorder import LateRecorder
from tests.engine.whisper import tiny
from tests.engine.whisper.test_decoding import LOUD, same

pytestmark = pytest.mark.slow


def captured(recorder, device="cpu", dtype=torch.float32):
    """Sizes that excerpts of up to 2 s, three at once and drafts of some tokens have to be fitted
    into."""
    network, words = tiny.network(multilingual=True, device=torch.device(device), dtype=dtype)
    passes = GraphPasses(network, recorder, (1, 3), (80, 100), (1, 13, 16))
    passes.warm_up()
    return Decoding(passes, words, cut_loops=False)


@pytest.fixture(scope="module")
def recorder():
    return LateRecorder()


@pytest.fixture(scope="module")
def replayed(recorder):
    return captured(recorder)


@pytest.fixture(scope="module")
def plain():
    return tiny.decoding(cut_loops=False, multilingual=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(data=st.data())
def test_replays_say_what_plain_passes_do(plain, replayed, data):
    """Batch after batch, on the same memory."""
    requests = []
    for _ in range(data.draw(st.integers(1, 3))):
        samples = LOUD[data.draw(st.integers(0, 3))]
        language = data.draw(st.sampled_from(["en", "de", None]))
        draft = plain([Request(samples, language)])[0].tokens
        cut = data.draw(st.integers(0, len(draft)))
        other = data.draw(st.lists(st.integers(0, 70), max_size=3))
        given = tuple(range(data.draw(st.sampled_from([0, 3, 15, 40]))))
        requests.append(
            Request(samples, language, (*draft[:cut], *other, *draft[cut:]), prompt=given)
        )
    for one, other in zip(replayed(requests), plain(requests), strict=True):
        same(one, other)


def test_what_is_looked_for_is_done_in_few_replays(recorder, replayed):
    """One to hear the excerpt, and one for as much of a draft as goes into a pass."""
    (found,) = replayed([Request(LOUD[1], "en")])
    before = recorder.replays
    (again,) = replayed([Request(LOUD[1], "en", found.tokens)])
    assert again.tokens == found.tokens
    assert len(found.tokens) > 12, "more than goes into the first pass with what stands before it"
    assert recorder.replays - before == 1 + 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, plain):
    requests = [Request(samples, "en") for samples in LOUD[:3]]
    decode = captured(LateRecorder(), dtype=dtype)
    for half, full in zip(decode(requests), plain(requests), strict=True):
        assert half.tokens[0] == full.tokens[0]
        assert half.logprobs[0] == pytest.approx(full.logprobs[0], abs=0.3)
        assert half.scores.dtype == np.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_say_what_plain_passes_do(plain):
    decode = captured(CudaGraphRecorder(torch.device("cuda")), "cuda")
    requests = [Request(samples, None) for samples in LOUD[:3]]
    for one, other in zip(decode(requests), plain(requests), strict=True):
        same(one, other)
