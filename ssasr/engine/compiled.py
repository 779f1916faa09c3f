"""Loops in Python that numba compiles: where a library has no operation, and torch's own are too
many passes over memory."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """A decorator. Other threads go on meanwhile, a division by zero is infinite, sums may be
    reordered, so that vectors of them are added up, and nothing is NaN. What has been compiled is
    kept beside the source, or in ``NUMBA_CACHE_DIR``."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "nnan", "nsz", "contract"},
    }
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written
        return njit(**options)(function)
