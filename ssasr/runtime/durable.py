"""Files that a crash leaves as they were before or as they should be."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """All of ``text`` in place of what was there, on the disk (fsync) when this returns. Raises
    OSError, and what was there stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """What was created, renamed or removed in it stays so."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
