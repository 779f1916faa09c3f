"""Where a model runs, and in which precision."""

import torch

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


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it (Ampere and later), float16 on older CUDA
    devices, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
