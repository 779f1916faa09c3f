"""Memory stays what it is, in larger pages where the kernel has them."""

import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from ssasr.runtime import huge_pages
from ssasr.runtime.huge_pages import use_huge_pages

MAPS = """\
55d0c8400000-55d0c9e00000 rw-p 00000000 00:00 0                          [heap]
7f2a10000000-7f2a10200000 rw-p 00000000 00:00 0
7f2a20001000-7f2a21000000 rw-p 00000000 00:00 0
7f2a30000000-7f2a38000000 r--p 00000000 00:00 0
7f2a40000000-7f2a48000000 rw-p 00000000 fe:01 1234                       /weights of a model
7ffd60000000-7ffd68000000 rw-p 00000000 00:00 0                          [stack]
"""


def in_huge_pages():
    text = Path("/proc/self/smaps").read_text()
    return 1024 * sum(map(int, re.findall(r"AnonHugePages: +(\d+)", text)))


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists()
    or tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 1),
    reason="the kernel does not make huge pages when asked",
)
def test_what_is_in_memory_gets_them_and_keeps_its_contents():
    size, most = 64 << 20, 60 << 20
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    numbers = np.frombuffer(memory, np.int64)
    numbers[:] = np.arange(len(numbers))
    before = in_huge_pages()
    assert use_huge_pages() >= most
    assert in_huge_pages() >= before + most
    assert (numbers == np.arange(len(numbers))).all()


def test_whole_pages_of_memory_without_a_file():
    assert huge_pages._stretches(MAPS) == [
        (0x55D0C8400000, 0x55D0C9E00000),
        (0x7F2A20200000, 0x7F2A21000000),
    ]


def test_a_library_without_the_call_changes_nothing(monkeypatch):
    monkeypatch.setattr(huge_pages.ctypes, "CDLL", lambda _: object())
    assert use_huge_pages() == 0
