"""What faults did to the words of a run, against a run of the same audio without them."""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ssasr.bench.faults import LASTING, Fault
from ssasr.bench.measure import Spread, spread, turns
from ssasr.bench.player import StreamLog

RECOVERY_SECONDS = 6.0
"""Seconds after a fault in which a late word is put down to it."""

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
    """Streams whose every Turn, partial or not, and every revision of speakers was the same."""
    labelled: int = 0
    """Words with a speaker in the run without faults, after the last revision."""
    relabelled: int = 0
    """Those that had another one."""


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


def speakers(log: StreamLog) -> list[str | None]:
    """Of the words of ``final_words``, after the last revision."""
    labels: dict[object, list[str | None]] = {}
    for message in turn_messages(log):
        for turn in message.get("revisions", [message]):
            if message["type"] == "SpeakerRevision" or turn["end_of_turn"]:
                labels[turn["turn_order"]] = [word.get("speaker") for word in turn["words"]]
    return [speaker for turn in labels.values() for speaker in turn]


def turn_messages(log: StreamLog) -> list[dict[str, Any]]:
    """Turns and what revises them."""
    messages = (json.loads(text) for _, text in log.arrivals)
    return [each for each in messages if each.get("type") in {"Turn", "SpeakerRevision"}]


def compare(logs: Sequence[StreamLog], expected: Callable[[StreamLog], StreamLog]) -> Damage:
    """``expected``: the log without faults of the same track."""
    lost = duplicated = changed = moved = identical = words = labelled = relabelled = 0
    for log in logs:
        reference = expected(log)
        wanted, got = final_words(reference), final_words(log)
        words += len(wanted)
        identical += turn_messages(reference) == turn_messages(log)
        was_by, is_by = speakers(reference), speakers(log)
        labelled += sum(speaker is not None for speaker in was_by)
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
                relabelled += sum(
                    was != now for was, now in zip(was_by[a:b], is_by[c:d], strict=True)
                )
    return Damage(
        len(logs), words, lost, duplicated, changed, moved, identical, labelled, relabelled
    )


def pauses(logs: Sequence[StreamLog], faults: Sequence[tuple[float, Fault]]) -> Pauses:
    """``faults``: with the time at which each was done."""
    lags = [lag for log in logs for lag in word_lags(log)]
    if not lags:
        return Pauses(0.0, spread([]), 0.0, [])
    usual = sorted(lag for _, lag in lags)[len(lags) // 2]
    worst = []
    for at, fault in faults:
        end = at + RECOVERY_SECONDS + (fault.seconds if fault.kind in LASTING else 0.0)
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
    """How many sessions ended with each close code, and with what problem."""
    return Counter(f"{log.code}: {log.problem}" if log.problem else str(log.code) for log in logs)
