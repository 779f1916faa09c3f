"""Faults on a schedule: what is done to which process, and when.

A schedule is a list of moments: ``kill@10,stop@20+3``, or drawn at random (``kill*20/1.5``: twenty,
at random moments 1.5 s apart on average). A process that was ended is for its supervisor to start
again.
"""

import os
import re
import signal
from contextlib import suppress
from random import Random

import trio
from attrs import frozen

SIGNALS = frozenset({"kill", "term", "stop", "slow"})
"""Kinds that can be done to any process (``inject``); others need a cluster of one's own."""
LASTING = frozenset({"stop", "slow"})
"""Kinds for which ``Fault.seconds`` means something."""
SLOW_PERIOD, SLOW_SHARE = 0.2, 0.75
"""``slow``: in every period of so many seconds the process is stopped for this share."""
FIRST_RANDOM = 5.0
"""Seconds before random faults begin."""
_AT = re.compile(r"(?P<kind>[a-z_]+)@(?P<at>[0-9.]+)(\+(?P<seconds>[0-9.]+))?")
_MANY = re.compile(
    r"(?P<kind>[a-z_]+)\*(?P<count>[0-9]+)/(?P<every>[0-9.]+)(\+(?P<seconds>[0-9.]+))?"
)


@frozen
class Fault:
    """``at``: seconds after the streams began; ``seconds``: how long it lasts, of ``LASTING``."""

    at: float
    kind: str
    seconds: float = 2.0


def parse_schedule(text: str, random: Random) -> list[Fault]:
    """In order of time. Raises ValueError."""
    faults = []
    for part in text.split(","):
        if match := _AT.fullmatch(part.strip()):
            faults.append(Fault(float(match["at"]), match["kind"], float(match["seconds"] or 2.0)))
        elif match := _MANY.fullmatch(part.strip()):
            every, lasting = float(match["every"]), float(match["seconds"] or 2.0)
            for index in range(int(match["count"])):
                at = FIRST_RANDOM + (index + random.random()) * every
                faults.append(Fault(at, match["kind"], lasting))
        else:
            raise ValueError(f"{part!r} is not of the form kind@S, kind@S+S or kind*N/S")
    return sorted(faults, key=lambda fault: fault.at)


def parse_signals(text: str, seed: int) -> list[Fault]:
    """A schedule of what can be done to any process. Raises ValueError."""
    faults = parse_schedule(text, Random(seed))
    for fault in faults:
        if fault.kind not in SIGNALS:
            raise ValueError(f"{fault.kind!r} is not one of {', '.join(sorted(SIGNALS))}")
    return faults


async def inject(pid: int, fault: Fault) -> None:
    """Do one fault of ``SIGNALS`` to one process; nothing if the process has ended."""
    with suppress(ProcessLookupError):
        match fault.kind:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case "term":
                os.kill(pid, signal.SIGTERM)
            case "stop":
                await _stopped(pid, fault.seconds)
            case "slow":
                end = trio.current_time() + fault.seconds
                while trio.current_time() < end:
                    await _stopped(pid, SLOW_PERIOD * SLOW_SHARE)
                    await trio.sleep(SLOW_PERIOD * (1 - SLOW_SHARE))
            case kind:
                raise AssertionError(f"no fault is called {kind!r}")


async def _stopped(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await trio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
