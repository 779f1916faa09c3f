"""The metrics of a GPU, where there is one; the library is a fake behind the interface that is
used of it."""

import pynvml
import pytest

from ssasr.cli.processes.recognition import RecognitionConfig
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.telemetry.gpu import Nvml, gpu_collector
from ssasr.telemetry.metrics import Metrics, Side
from tests.harness.nvml import FakeNvml


def shown(nvml):
    """The lines about GPUs, by what is before the labels."""
    metrics = Metrics(frozenset({Side.ENGINE}))
    metrics.registry.register(gpu_collector("english", "GPU-1", nvml))
    lines = metrics.exposition().decode().splitlines()
    found = [line for line in lines if line.startswith("ssasr_gpu")]
    assert all('{engine="english",gpu="GPU-1"}' in line for line in found)
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in found}


def test_what_the_library_says_is_what_is_shown():
    assert shown(FakeNvml(errors=2)) == {
        "ssasr_gpu_utilization_ratio": 0.37,
        "ssasr_gpu_memory_used_bytes": 10 << 30,
        "ssasr_gpu_memory_total_bytes": 80 << 30,
        "ssasr_gpu_temperature_celsius": 61,
        "ssasr_gpu_memory_errors_total": 2,
    }


def test_what_a_gpu_does_not_know_is_left_out():
    assert shown(FakeNvml(partial=True)).keys() == {
        "ssasr_gpu_memory_used_bytes",
        "ssasr_gpu_memory_total_bytes",
        "ssasr_gpu_temperature_celsius",
    }


@pytest.mark.parametrize("nvml", [FakeNvml(driver=False), FakeNvml(uuid="GPU-2")])
def test_a_gpu_that_cannot_be_asked_has_no_metrics(nvml):
    assert gpu_collector("english", "GPU-1", nvml) is None


def test_the_real_library_has_what_is_used_of_it():
    wanted = [name for name in dir(Nvml) if name.startswith("nvml")] + list(Nvml.__annotations__)
    assert [name for name in wanted if not hasattr(pynvml, name)] == []
    assert len(wanted) == 10


async def test_on_a_cpu_there_is_nothing_of_a_gpu():
    config = RecognitionConfig("model", "cpu", None, 3, None, speakers=False)
    metrics = Metrics(frozenset({Side.ENGINE}))
    config.host("english", ScriptedRecognizer(), None, metrics)
    text = metrics.exposition().decode()
    assert 'ssasr_engine_capacity{engine="english"} 3.0' in text
    assert "ssasr_gpu" not in text
    assert "ssasr_engine_device_memory_bytes{" not in text
