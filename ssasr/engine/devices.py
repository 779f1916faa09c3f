"""The device that a model runs on, and its precision."""

import torch

from ssasr.engine.kernels import int8_limit
from ssasr.errors import StartRefused


def choose_device(wanted: str) -> torch.device:
    """``auto``: the first CUDA device if there is one. Raises StartRefused for one that is not
    there."""
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise StartRefused(f"unknown device {wanted!r}: auto, cpu or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StartRefused(f"there is no device {wanted}")
    return device


def gpu_uuid(device: torch.device) -> str | None:
    """As NVIDIA's driver names the GPU; None: it is none."""
    if device.type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def choose_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """bfloat16 where the device computes with it (Ampere and later), float16 on older CUDA
    devices; float32 on a CPU, and where it is asked for."""
    if device.type != "cuda" or precision == "float32":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def choose_int8(device: torch.device, precision: str) -> bool:
    """Whether linear layers are run in 8 bits: on a CPU that is fast with them, unless float32 is
    asked for. Raises StartRefused if they are asked for and cannot be had."""
    if precision == "float32":
        return False
    available = device.type == "cpu" and int8_limit() > 0
    if precision == "int8" and not available:
        where = "this CPU" if device.type == "cpu" else str(device)
        raise StartRefused(f"{where} has no 8-bit products that are exact, and fast")
    return available
