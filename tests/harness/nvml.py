"""A GPU of which NVIDIA's management library knows everything, or not."""

from types import SimpleNamespace

from attrs import define


class FakeNvmlError(Exception):
    pass


@define
class FakeNvml:
    """``uuid``: of the one GPU there is. ``partial``: it is a part of a card, without utilisation
    and error counts. ``driver``: it is loaded."""

    uuid: str = "GPU-1"
    partial: bool = False
    driver: bool = True
    errors: int = 0

    NVMLError = FakeNvmlError
    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    def nvmlInit(self):
        if not self.driver:
            raise FakeNvmlError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != self.uuid:
            raise FakeNvmlError("Not Found")
        return "the handle"

    def nvmlDeviceGetUtilizationRates(self, handle):
        self._check(handle)
        return SimpleNamespace(gpu=37, memory=12)

    def nvmlDeviceGetMemoryInfo(self, handle):
        assert handle == "the handle"
        return SimpleNamespace(used=10 << 30, total=80 << 30, free=70 << 30)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert (handle, sensor) == ("the handle", self.NVML_TEMPERATURE_GPU)
        return 61

    def nvmlDeviceGetTotalEccErrors(self, handle, error, counter):
        self._check(handle)
        assert (error, counter) == (self.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, self.NVML_VOLATILE_ECC)
        return self.errors

    def _check(self, handle):
        assert handle == "the handle"
        if self.partial:
            raise FakeNvmlError("Not Supported")
