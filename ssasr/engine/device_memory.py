"""How much of a GPU this process holds."""

import sys


def reserved_bytes() -> float:
    """Over all devices; 0 without CUDA. Does not import torch: an engine without weights lives
    without it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    devices = range(torch.cuda.device_count())
    return float(sum(torch.cuda.memory_reserved(device) for device in devices))
