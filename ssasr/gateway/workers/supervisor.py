"""Several worker processes behind one port, and the process that looks after them.

The parent serves nothing. It forks the workers before anything runs in it but this loop, starts
again any that dies, later and later if it dies at once, and passes on the order to stop. The order
reaches them in another way as well: they hold one end of a pipe whose other end dies with it.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field, frozen

from ssasr.gateway.workers.shared import forget, prepare
from ssasr.telemetry.logs import get_logger

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before a worker that died is started again; doubled each time it dies early."""
EARLY = 60.0
"""Seconds after its start."""
SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})

log = get_logger(__name__)


@frozen
class Worker:
    """What a worker process knows of its place."""

    number: int
    count: int
    directory: Path
    """For ``shared``."""
    parent: int
    """File descriptor: readable once the parent is gone."""
    _started: int

    def started(self) -> None:
        """It listens."""
        with contextlib.suppress(OSError):
            os.write(self._started, b"1")


@define(eq=False)
class _Child:
    number: int
    pid: int
    began: float
    started: int
    """File descriptor with a byte in it once the worker has started."""


@define(eq=False)
class Supervisor:
    """``work``: what a worker does, in its own process; returns its exit status."""

    count: int
    work: Callable[[Worker], int]
    directory: Path = field(init=False)
    _children: dict[int, _Child] = field(factory=dict)
    _due: dict[int, float] = field(factory=dict)
    """When workers that died are started again."""
    _deaths: dict[int, int] = field(factory=dict)
    """In a row, each within ``EARLY`` seconds."""
    _parent_pipe: tuple[int, int] = field(factory=os.pipe)
    _stopping: bool = False
    _status: int = 0

    def run(self) -> int:
        """The exit status: 0 if all workers ended well after the signal to stop."""
        self.directory = Path(tempfile.mkdtemp(prefix="ssasr-workers-"))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            prepare(self.directory)
            for number in range(self.count):
                self._start(number)
            while self._children or self._due:
                self._wait()
            return self._status
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, number: int) -> None:
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            os._exit(self._be_worker(number, readable, writable))
        os.close(writable)
        os.set_blocking(readable, False)
        self._children[pid] = _Child(number, pid, time.monotonic(), readable)

    def _be_worker(self, number: int, readable: int, writable: int) -> int:
        """In the new process. A terminal's interrupt is the parent's affair alone."""
        os.setpgid(0, 0)
        os.close(readable)
        os.close(self._parent_pipe[1])
        for child in self._children.values():
            os.close(child.started)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens to it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self.work(Worker(number, self.count, self.directory, self._parent_pipe[0], writable))

    def _wait(self) -> None:
        """For a signal, or for the time to start a worker again."""
        timeout = LONGEST_DELAY
        if self._due:
            timeout = max(min(self._due.values()) - time.monotonic(), 0.0)
        came = signal.sigtimedwait(SIGNALS, timeout)
        if came is not None and came.si_signo == signal.SIGHUP:
            for pid in self._children:
                os.kill(pid, signal.SIGHUP)
        elif came is not None and came.si_signo != signal.SIGCHLD:
            log.info("stopping", signal=signal.Signals(came.si_signo).name, workers=self.count)
            self._stop()
        self._reap()
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number)

    def _stop(self) -> None:
        """Again: workers take the second SIGTERM for an order to end at once."""
        self._stopping = True
        self._due.clear()
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._note_exit(child, os.waitstatus_to_exitcode(status))

    def _note_exit(self, child: _Child, status: int) -> None:
        try:
            has_started = os.read(child.started, 1) == b"1"
        except BlockingIOError:
            has_started = False
        os.close(child.started)
        forget(self.directory, child.number)
        if self._stopping:
            self._status = self._status or abs(status)
        elif not has_started:  # it has said why; the others would find the same
            log.error("a worker does not start", worker=child.number, status=status)
            self._status = abs(status) or 1
            self._stop()
        else:
            now = time.monotonic()
            early = now - child.began < EARLY
            deaths = self._deaths[child.number] = self._deaths.get(child.number, 0) * early + 1
            delay = min(FIRST_DELAY * 2.0 ** (deaths - 1), LONGEST_DELAY)
            self._due[child.number] = now + delay
            log.error("a worker died", worker=child.number, status=status, again_in=delay)
