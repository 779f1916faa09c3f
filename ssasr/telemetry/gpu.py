"""What NVIDIA's management library (NVML) says of the GPU that an engine computes on. Asked when
the metrics are read; without the library or the extra ``gpu`` there are no such metrics."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from attrs import define, frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ssasr.telemetry.logs import get_logger

LABELS = ("engine", "gpu")

log = get_logger(__name__)


class Nvml(Protocol):
    """What is used of the module ``pynvml``."""

    NVMLError: type[Exception]
    NVML_TEMPERATURE_GPU: int
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED: int
    NVML_VOLATILE_ECC: int

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error: int, counter: int) -> int: ...


@frozen
class Reading:
    """``read`` raises ``NVMLError`` where the GPU has no such thing."""

    name: str
    help: str
    read: Callable[[Nvml, Any], float]
    counts: bool = False

    def family(self) -> Metric:
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        return kind(self.name, self.help, labels=LABELS)


READINGS = (
    Reading(
        "ssasr_gpu_utilization_ratio",
        "Share of the last moments in which the GPU was at work",
        lambda nvml, gpu: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100,
    ),
    Reading(
        "ssasr_gpu_memory_used_bytes",
        "Memory of the GPU in use, by any process",
        lambda nvml, gpu: float(nvml.nvmlDeviceGetMemoryInfo(gpu).used),
    ),
    Reading(
        "ssasr_gpu_memory_total_bytes",
        "Memory of the GPU",
        lambda nvml, gpu: float(nvml.nvmlDeviceGetMemoryInfo(gpu).total),
    ),
    Reading(
        "ssasr_gpu_temperature_celsius",
        "Temperature of the GPU",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
    Reading(
        "ssasr_gpu_memory_errors",
        "Memory errors that could not be corrected, since the driver was loaded",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEccErrors(
            gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        counts=True,
    ),
)


@define(eq=False)
class GpuCollector(Collector):
    """``uuid``: the GPU's, as the driver names it."""

    nvml: Nvml
    engine: str
    uuid: str
    handle: Any

    def describe(self) -> list[Metric]:
        return [reading.family() for reading in READINGS]

    def collect(self) -> list[Metric]:
        found = []
        for reading in READINGS:
            family = reading.family()
            try:
                value = reading.read(self.nvml, self.handle)
            except self.nvml.NVMLError:  # a part of a GPU has no utilisation, others no ECC
                continue
            family.add_metric((self.engine, self.uuid), value)  # type: ignore[attr-defined]
            found.append(family)
        return found


def gpu_collector(engine: str, uuid: str, nvml: Nvml | None = None) -> GpuCollector | None:
    """None where it cannot be asked."""
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError:
            log.info("no metrics of the GPU: pip install 'ssasr[gpu]'")
            return None
    assert nvml is not None, "given or imported"
    try:
        nvml.nvmlInit()
        return GpuCollector(nvml, engine, uuid, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError as error:
        log.warning("no metrics of the GPU", gpu=uuid, reason=str(error))
        return None
