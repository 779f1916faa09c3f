"""The detector in a process of its own, so that the event loop never waits for it.

One JSON object a line, both ways. The child first says that it is ready, or why it is not; then it
answers every ``{"id", "words", "policies"}`` with ``{"id", "findings"}``, in order, until its
input ends. What it is given is in no log: a request that it fails on is answered with no more than
that it failed.
"""

import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio
from attrs import define, field

from ssasr.errors import SsasrError, StartRefused
from ssasr.gateway.redaction.policies import Finding
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.logs import get_logger

LONGEST_LINE = 1 << 22
"""Bytes of one answer; a turn's words are far fewer."""
LOOK_SECONDS, LOOKS = 3.0, 10
"""So long, ten times in a row, the same request is the oldest without an answer: the process hangs.
Each takes milliseconds, and a gateway that stood still itself has looked only once."""
REMEDY = "install ssasr[redaction], and what --redaction-model needs"


log = get_logger(__name__)


class DetectorLost(SsasrError):
    """The detector's process ended: without it nothing may be said, so the gateway ends too."""


@define(eq=False)
class DetectorProcess:
    """``find`` may be called from any number of tasks."""

    _process: trio.Process
    _next: int = 0
    _waiting: dict[int, "_Reply"] = field(factory=dict)
    _writing: trio.Lock = field(factory=trio.Lock)

    async def find(self, words: Sequence[str], asked: frozenset[str]) -> list[Finding] | None:
        """What is in these words of the policies ``asked`` for, and perhaps of others; None: the
        detector failed on them."""
        self._next += 1
        number = self._next
        reply = self._waiting[number] = _Reply()
        request = {"id": number, "words": list(words), "policies": sorted(asked)}
        line = json.dumps(request).encode() + b"\n"
        assert self._process.stdin is not None, "opened with pipes"
        try:
            async with self._writing:
                with trio.CancelScope(shield=True):  # half a line would be everybody's end
                    await self._process.stdin.send_all(line)
            await reply.there.wait()
        except trio.BrokenResourceError:
            raise DetectorLost("the process that finds personal data has ended") from None
        finally:
            del self._waiting[number]
        return reply.findings

    async def read(self) -> None:
        """Hands out the answers. Raises DetectorLost when there will be no more."""
        assert self._process.stdout is not None, "opened with pipes"
        async for line in _lines(self._process.stdout):
            answer = json.loads(line)
            reply = self._waiting.get(answer["id"])
            if reply is not None:  # None: the caller was cancelled
                found = answer.get("findings")
                reply.findings = None if found is None else [Finding(*each) for each in found]
                reply.there.set()
        raise DetectorLost("the process that finds personal data has ended")

    async def watch(self) -> None:
        """Ends a process that hangs: sessions would wait for it without a word."""
        oldest, looks = None, 0
        while looks < LOOKS:
            await trio.sleep(LOOK_SECONDS)
            first = next(iter(self._waiting), None)
            looks = looks + 1 if first is not None and first == oldest else 0
            oldest = first
        log.error("the process that finds personal data hangs")
        self._process.kill()


@define(eq=False)
class _Reply:
    there: trio.Event = field(factory=trio.Event)
    findings: list[Finding] | None = None


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    buffer = b""
    async for data in stream:
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            yield line
        if len(buffer) > LONGEST_LINE:
            return


@asynccontextmanager
async def detector_process(model: Path) -> AsyncIterator[DetectorProcess]:
    """Loaded and ready. ``model``: the folder of a model of names. Raises StartRefused, and
    DetectorLost if it ends within the block."""
    command = [sys.executable, "-m", "ssasr.gateway.redaction.process", str(model)]
    async with plain_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None, "opened with pipes"
        first = await _first_line(process.stdout)
        if "ready" not in first:
            reason = first.get("error", "its process did not start")
            raise StartRefused(f"--redaction cannot load {model}: {reason}")
        detector = DetectorProcess(process)
        nursery.start_soon(detector.read)
        nursery.start_soon(detector.watch)
        yield detector
        nursery.cancel_scope.cancel()


async def _first_line(stream: trio.abc.ReceiveStream) -> dict[str, Any]:
    """{} if there is none."""
    buffer = b""
    while not buffer.endswith(b"\n"):
        data = await stream.receive_some()
        if not data:
            return {}
        buffer += data
    first: dict[str, Any] = json.loads(buffer)
    return first


# -- the child -------------------------------------------------------------------------------------


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(model: str) -> None:
    """Answers until stdin ends, which it also does when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent's to deal with
    try:
        from ssasr.gateway.redaction.detector import Detector
        from ssasr.gateway.redaction.model import load

        detector = Detector(load(Path(model)))
        detector.find(["Warm", "up", "with", "John", "Smith."])
    except ImportError as error:
        _say({"error": f"it needs {error.name}, which is not installed: {REMEDY}"})
        return
    except Exception as error:  # of any of the libraries, for any reason
        _say({"error": str(error).partition("\n")[0] or type(error).__name__})
        return
    _say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, object] = {"id": request["id"]}
        try:
            found = detector.find(request["words"], frozenset(request["policies"]))
            answer["findings"] = [[f.policy, f.first, f.last, f.score] for f in found]
        except Exception:  # whose text and traceback may quote the words
            answer["failed"] = True
        _say(answer)


if __name__ == "__main__":
    main(sys.argv[1])
