"""Recording and replaying: the recorder that the other tests use, and CUDA's the same."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch

from ssasr.engine.graphs import CudaGraphRecorder
from tests.engine.recorder import LateRecorder

cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.fixture(params=["cpu", cuda])
def device(request):
    return torch.device(request.param)


@pytest.fixture
def recorder(device):
    return LateRecorder() if device.type == "cpu" else CudaGraphRecorder(device)


def test_a_replay_does_it_again_on_the_same_places(recorder, device):
    given, count = torch.zeros(3, device=device), torch.zeros(1, device=device)
    host, answer = (recorder.pinned(3, dtype=torch.float32) for _ in range(2))
    runs = []

    def function():
        runs.append(len(runs))
        count.add_(1)
        doubled = given * 2
        return doubled.view(1, 3)[0], runs[-1]

    recording = recorder.capture(function)
    ran, counted = len(runs), float(count)
    with recorder.working():
        for number in range(1, 4):
            host.fill_(number)
            given.copy_(host, non_blocking=True)
            recording.replay()
            answer.copy_(recording.result[0], non_blocking=True)
            recorder.synchronize()
            assert answer.tolist() == [2 * number] * 3
    assert len(runs) == ran, "Python ran again"
    assert float(count) == counted + 3


def test_a_recording_goes_on_where_another_one_stopped(recorder, device):
    given = torch.ones(2, device=device)
    first = recorder.capture(lambda: given + 1)
    with recorder.working():
        first.replay()
    second = recorder.capture(lambda: first.result.mul_(2))
    with recorder.working():
        first.replay()
        second.replay()
        second.replay()
    recorder.synchronize()
    assert first.result.tolist() == [8, 8]


def reading_its_own(recorder, device):
    """A recording of a function that nobody else has, and the tensor that only it knows."""
    own = torch.arange(1000, device=device)
    return recorder.capture(lambda: own + 1), weakref.ref(own)


def test_what_only_the_function_knows_stays_in_its_place(recorder, device):
    recording, own = reading_its_own(recorder, device)
    gc.collect()
    assert own() is not None
    others = [torch.full((1000,), -1, device=device) for _ in range(50)]
    with recorder.working():
        recording.replay()
    recorder.synchronize()
    assert recording.result.tolist() == list(range(1, 1001))
    assert len(others) == 50


class NoGraph:
    """In the place of a stream, and of a graph."""

    def __init__(self, *_):
        """There is nothing."""

    def synchronize(self):
        """Nothing to wait for."""

    replay = synchronize


def test_a_device_s_recorder_keeps_it_there(monkeypatch):
    """Without a device: whose graph would not keep it either."""
    for name in ("Stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, NoGraph)
    for name in ("graph_pool_handle", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    recording, own = reading_its_own(CudaGraphRecorder(torch.device("cuda")), "cpu")
    gc.collect()
    assert own() is not None
    del recording
    gc.collect()
    assert own() is None


FORBIDDEN = {
    "a look at a value": lambda x: x.sum().item(),
    "a look at a truth": lambda x: bool((x > 0).any()),
    "host data": lambda x: x + torch.tensor([1.0, 2.0], device=x.device),
    "a shape that depends on values": lambda x: x[x > 0],
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_cannot_be_recorded(what):
    x = torch.ones(2)
    with pytest.raises(AssertionError, match=r"looked at|host data|depends on values"):
        LateRecorder().capture(lambda: FORBIDDEN[what](x))


def test_the_device_does_nothing_before_somebody_waits():
    recorder = LateRecorder()
    host, device = recorder.pinned(2, dtype=torch.float32), torch.zeros(2)
    with recorder.working():
        host.fill_(1)
        device.copy_(host, non_blocking=True)
        host.fill_(2)  # too early
    recorder.synchronize()
    assert device.tolist() == [2, 2]


def test_a_recording_is_nothing_before_its_first_replay():
    x = torch.ones(2)
    made = LateRecorder().capture(lambda: (x + 1, x > 2, x.int(), x.view(2))).result
    assert made[0].isnan().all()
    assert made[2].tolist() != [1, 1]
    assert made[3].tolist() == [1, 1], "what was there before is left alone"
