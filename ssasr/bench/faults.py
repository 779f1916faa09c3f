"""Faults on a schedule, and what they did to the words.

A schedule is a list of moments: ``kill@10,stop@20+3``, or drawn at random (``kill*20/1.5``: twenty,
at random moments 1.5 s apart on average). What a fault hits is chosen at random among the processes
that are there. Processes that are killed are for their supervisor to start again.
"""

import difflib
import json
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random

import trio
from attrs import frozen

from ssasr.bench.measure import Spread, spread, turns
from ssasr.bench.player import StreamLog

RECOVERY_SECONDS = 6.0
"""Seconds after a fault in which a late word is put down to it."""
SLOW_PERIOD, SLOW_SHARE = 0.2, 0.75
"""``slow``: in every period of so many seconds the process is stopped for this share."""
_AT = re.compile(r"(?P<kind>[a-z_]+)@(?P<at>[0-9.]+)(\+(?P<seconds>[0-9.]+))?")
_MANY = re.compile(
    r"(?P<kind>[a-z_]+)\*(?P<count>[0-9]+)/(?P<every>[0-9.]+)(\+(?P<seconds>[0-9.]+))?"
)


@frozen
class Fault:
    """``at``: seconds after the streams began; ``seconds``: how long it lasts, where that means
    something."""

    at: float
    kind: str
    seconds: float = 2.0


def parse_schedule(text: str, random: Random, *, first: float = 5.0) -> list[Fault]:
    """In order of time; random faults begin ``first`` seconds in. Raises ValueError."""
    faults = []
    for part in text.split(","):
        if match := _AT.fullmatch(part.strip()):
            faults.append(Fault(float(match["at"]), match["kind"], float(match["seconds"] or 2.0)))
        elif match := _MANY.fullmatch(part.strip()):
            every, lasting = float(match["every"]), float(match["seconds"] or 2.0)
            for index in range(int(match["count"])):
                at = first + (index + random.random()) * every
                faults.append(Fault(at, match["kind"], lasting))
        else:
            raise ValueError(f"{part!r} is not of the form kind@S, kind@S+S or kind*N/S")
    return sorted(faults, key=lambda fault: fault.at)


# -- doing -----------------------------------------------------------------------------------------


async def inject(pid: int, fault: Fault) -> None:
    """One fault on one process; one that has gone has nothing left to suffer. Raises ValueError for
    a kind that is not a matter of signals."""
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
                raise ValueError(f"no fault is called {kind!r}")


async def _stopped(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await trio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# -- judging ---------------------------------------------------------------------------------------

SpokenWord = tuple[str, int, int]
"""Text, start and end in milliseconds, as the client got them at the end of the turn."""


@frozen
class Damage:
    """Words of all streams against those of the run without faults."""

    streams: int
    words: int
    """In the run without faults."""
    lost: int
    duplicated: int
    changed: int
    moved: int
    """The same words at other times: a model that decodes again may place them a little aside."""
    identical: int
    """Streams whose every Turn, partial or not, was the same."""


@frozen
class Pauses:
    """For each fault, the worst delay of a word on any stream, beyond the usual."""

    usual: float
    """Median lag of a word, in seconds."""
    worst: Spread
    longest: float
    per_fault: Sequence[float]


def final_words(log: StreamLog) -> list[SpokenWord]:
    """Of the turns that ended."""
    words: list[SpokenWord] = []
    for turn in turns(log.arrivals):
        last = turn.messages[-1][1]
        if last["end_of_turn"]:
            assert isinstance(last["words"], list), "a Turn has words"
            words += [(word["text"], word["start"], word["end"]) for word in last["words"]]
    return words


def _texts(words: Sequence[SpokenWord]) -> list[str]:
    return [text for text, _, _ in words]


def turn_messages(log: StreamLog) -> list[dict[str, object]]:
    messages = (json.loads(text) for _, text in log.arrivals)
    return [message for message in messages if message.get("type") == "Turn"]


def compare(logs: Sequence[StreamLog], expected: Callable[[StreamLog], StreamLog]) -> Damage:
    """``expected``: the log without faults of the same track."""
    lost = duplicated = changed = moved = identical = words = 0
    for log in logs:
        reference = expected(log)
        wanted, got = final_words(reference), final_words(log)
        words += len(wanted)
        identical += turn_messages(reference) == turn_messages(log)
        matcher = difflib.SequenceMatcher(None, _texts(wanted), _texts(got), autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == "delete":
                lost += b - a
            elif tag == "insert":
                duplicated += d - c
            elif tag == "replace":
                changed += max(b - a, d - c)
            else:
                moved += sum(was != now for was, now in zip(wanted[a:b], got[c:d], strict=True))
    return Damage(len(logs), words, lost, duplicated, changed, moved, identical)


def pauses(logs: Sequence[StreamLog], faults: Sequence[tuple[float, Fault]]) -> Pauses:
    """``faults``: with the time at which each was done."""
    lags = [lag for log in logs for lag in word_lags(log)]
    if not lags:
        return Pauses(0.0, spread([]), 0.0, [])
    usual = sorted(lag for _, lag in lags)[len(lags) // 2]
    worst = []
    for at, fault in faults:
        end = at + RECOVERY_SECONDS + (fault.seconds if fault.kind in {"stop", "slow"} else 0.0)
        near = [lag - usual for spoken, lag in lags if at - 1.0 <= spoken <= end]
        worst.append(max(near, default=0.0))
    return Pauses(usual, spread(worst), max(worst, default=0.0), worst)


def word_lags(log: StreamLog) -> list[tuple[float, float]]:
    """(when a word had been spoken, how much later it was first shown), for every word."""
    if log.began is None:
        return []
    found = []
    for turn in turns(log.arrivals):
        last = turn.messages[-1][1]["words"]
        shown = 0
        for at, message in turn.messages:
            assert isinstance(last, list), "a Turn has words"
            assert isinstance(message["words"], list), "a Turn has words"
            for word in last[shown : len(message["words"])]:
                spoken = log.began + word["end"] / 1_000
                found.append((spoken, at - spoken))
            shown = max(shown, len(message["words"]))
    return found


def codes(logs: Sequence[StreamLog]) -> Mapping[str, int]:
    """How the sessions ended."""
    counts: dict[str, int] = {}
    for log in logs:
        key = str(log.code) if not log.problem else f"{log.code}: {log.problem}"
        counts[key] = counts.get(key, 0) + 1
    return counts
