"""The thread that runs the model.

One thread, because the device context, the inference mode and the library handles are per thread;
a recogniser on a processor may ask for several. What a job raises is raised by ``run``, and ends
the process. The scheduler stays in the trio thread, so nothing here needs a lock.

All threads share the interpreter lock, and every operation of a tensor library releases it. With
the default switch interval of 5 ms, each operation may then wait that long for a busy event loop to
give it back (measured: 20 small operations and 1 ms of Python take 1.7 ms alone, 111 ms beside a
busy loop, and 11 ms with the interval below).
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple

import outcome
import trio
from attrs import define, field

from ssasr.errors import SsasrError
from ssasr.runtime.process import plain_nursery

SWITCH_SECONDS = 0.0002
"""The interpreter's switch interval, set for the whole process when a model thread starts."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ModelThreadGone(SsasrError):
    """The model thread has died or was stopped; the job was not done."""


class ModelCaller(Protocol):
    """Runs a function where the model lives."""

    async def call(self, fn: Callable[[*Ts], T], *args: *Ts) -> T: ...


class InlineModel:
    """Runs jobs in the trio thread: for virtual-time tests and recognisers that take no time."""

    async def call(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        await trio.lowlevel.checkpoint()
        return fn(*args)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()


@define(eq=False)
class _Job:
    fn: Callable[[], object]
    done: trio.Event = field(factory=trio.Event)
    result: outcome.Outcome[Any] | None = None

    def resolve(self, result: outcome.Outcome[Any]) -> None:
        self.result = result
        self.done.set()


class ModelThread:
    """Has a thread while ``run`` is running, or ``threads`` of them, each of which takes the next
    job. If a job raises, the thread ends, ``run`` raises the same exception, and all waiting calls
    raise ``ModelThreadGone``."""

    def __init__(self, name: str = "model", threads: int = 1) -> None:
        self._name, self._threads = name, threads
        self._send, self._receive = trio.open_memory_channel[_Job](1)
        self._waiting: set[_Job] = set()
        self._gone = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        limiter = trio.CapacityLimiter(self._threads)
        main = partial(trio.to_thread.run_sync, self._main, limiter=limiter, thread_name=self._name)
        try:
            async with plain_nursery() as nursery:
                task_status.started()
                for _ in range(self._threads):
                    nursery.start_soon(main)
        finally:
            self._gone = True
            for job in self._waiting:
                job.resolve(outcome.Error(ModelThreadGone(f"the {self._name} thread has ended")))

    async def call(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``fn(*args)`` in the thread. Cancelling the caller does not stop the job."""
        job = _Job(lambda: fn(*args))
        if self._gone:
            raise ModelThreadGone(f"the {self._name} thread has ended")
        self._waiting.add(job)
        try:
            await self._send.send(job)
            await job.done.wait()
        finally:
            self._waiting.discard(job)
        assert job.result is not None, "a done job has a result"
        return job.result.unwrap()  # type: ignore[no-any-return]

    def _main(self) -> None:
        while True:
            job = trio.from_thread.run(self._receive.receive)
            result = outcome.capture(job.fn)
            if isinstance(result, outcome.Error):
                raise result.error
            trio.from_thread.run_sync(job.resolve, result)
