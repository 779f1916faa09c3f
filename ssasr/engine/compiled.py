"""Loops in Python that numba compiles: where a library has no operation, and torch's own are too
many passes over memory."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """A decorator. Other threads go on meanwhile, a division by zero is infinite, sums may be
    reordered, so that vectors of them are added up, and nothing is NaN.

    Nothing is kept on the disk: numba numbers what it keeps of a function without a lock, so two
    processes that start side by side may each load what the other compiled for other types."""
    return njit(
        nogil=True,
        error_model="numpy",
        fastmath={"reassoc", "nnan", "nsz", "contract"},
    )(function)
