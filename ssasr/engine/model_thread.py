"""The one thread that runs the model.

One thread, because the device context, the inference mode and the library handles are per thread,
and because a crash then has one owner: what a job raises leaves ``run()``, and with it the process.
The scheduler stays in the trio thread, so nothing here needs a lock.

Both threads share the interpreter, and every operation of a tensor library lets go of it: with the
default switch interval of 5 ms each of them may wait so long for a busy event loop to give it back
(measured: 20 small operations and 1 ms of Python take 1.7 ms alone, 111 ms beside a busy loop,
11 ms with the interval below).
"""

import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple

import outcome
import trio
from attrs import define, field

from ssasr.errors import SsasrError

SWITCH_SECONDS = 0.0002
"""For which a thread that wants the interpreter lets another one have it; of the process, from the
start of its first model thread on."""

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
    """Owns the thread while ``run`` is running. A job that raises ends the thread, ``run`` raises
    the same exception, and whoever waits gets ``ModelThreadGone``."""

    def __init__(self, name: str = "model") -> None:
        self._name = name
        self._send, self._receive = trio.open_memory_channel[_Job](1)
        self._waiting: set[_Job] = set()
        self._gone = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            task_status.started()
            await trio.to_thread.run_sync(
                self._main, limiter=trio.CapacityLimiter(1), thread_name=self._name
            )
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
