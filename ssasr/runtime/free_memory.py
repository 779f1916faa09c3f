"""Memory that the C library keeps after it was freed."""

import ctypes
from contextlib import suppress


def return_free_memory() -> None:
    """To the system, where the library is glibc; elsewhere nothing. What a thread other than the
    first frees stays with the process otherwise: of a model that is loaded there, hundreds of
    megabytes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
