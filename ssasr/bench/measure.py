"""From what the clients saw to latencies, by the definitions of ``docs/benchmarking.md``. Pure.

* Finalization: receipt of an ``end_of_turn``, minus the end of speech in the audio, minus the
  silence that the session's parameters ask for before the turn may end (the short one when the
  message's confidence reaches the threshold, or for a family P sentence that is complete; the long
  one otherwise).
* Word lag: receipt of a word minus the end of that word; first seen, when its final text first
  stands in its place; final, when it is first marked final. The end of a word in the audio is what
  the last Turn says it is.
* First partial: receipt of the first words of a turn, minus the start of its first word.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence

from attrs import define, field, frozen

from ssasr.bench.player import StreamLog
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.protocol.settings import TurnSettings
from ssasr.protocol.speech_models import Family
from ssasr.protocol.text import ends_sentence
from ssasr.session.formatting import plain

FARTHEST_END = 0.75
"""Seconds between a turn's last word and the end of a stretch of sound that may still be its end.
Turns that end elsewhere (forced, by length, by a model that mistimes) are counted apart."""


@define
class Samples:
    """Seconds, of one run."""

    first_partial: list[float] = field(factory=list)
    first_seen: list[float] = field(factory=list)
    final: list[float] = field(factory=list)
    finalization: list[tuple[float, float]] = field(factory=list)
    """(time of the receipt, latency)"""
    unmatched: int = 0
    """Ends of turns at no known end of speech."""
    drain: list[float] = field(factory=list)
    """From the last audio to the close frame: what was left to do."""
    words: int = 0
    transcripts: list[tuple[str, str]] = field(factory=list)
    """(reference, what was said), of streams whose reference is known."""
    codes: dict[int, int] = field(factory=dict)
    problems: dict[str, int] = field(factory=dict)
    """Streams by what the client says went wrong."""
    lateness: list[float] = field(factory=list)
    blocked: float = 0.0
    messages: int = 0
    """Of audio, sent."""
    received: int = 0
    audio_seconds: float = 0.0


@define
class _TurnSoFar:
    """The messages of one turn: (receipt, Turn)."""

    messages: list[tuple[float, dict[str, object]]] = field(factory=list)


def collect(logs: Sequence[StreamLog], settings: TurnSettings) -> Samples:
    """Everything that one run says."""
    samples = Samples()
    for log in logs:
        _collect_stream(samples, log, settings)
    return samples


def _collect_stream(samples: Samples, log: StreamLog, settings: TurnSettings) -> None:
    if log.code is not None:
        samples.codes[log.code] = samples.codes.get(log.code, 0) + 1
    if log.problem:
        samples.problems[log.problem] = samples.problems.get(log.problem, 0) + 1
    samples.lateness += log.lateness
    samples.blocked += log.blocked
    samples.messages += log.sent
    samples.received += len(log.arrivals)
    samples.audio_seconds += log.sent * log.track.message_seconds
    if log.ended is not None and log.closed is not None:
        samples.drain.append(log.closed - log.ended)
    if log.began is None:
        return
    said = []
    for turn in turns(log.arrivals):
        ended = _measure_turn(samples, log, turn.messages, settings)
        said.append(ended)
    if log.track.reference is not None:
        samples.transcripts.append((log.track.reference, " ".join(filter(None, said))))


def turns(arrivals: Sequence[tuple[float, str]]) -> list[_TurnSoFar]:
    """The Turn messages, by turn, in order."""
    found: dict[int, _TurnSoFar] = {}
    for at, text in arrivals:
        message = json.loads(text)
        if message.get("type") == "Turn":
            found.setdefault(message["turn_order"], _TurnSoFar()).messages.append((at, message))
    return list(found.values())


def _measure_turn(
    samples: Samples,
    log: StreamLog,
    messages: Sequence[tuple[float, dict[str, object]]],
    settings: TurnSettings,
) -> str:
    """Its transcript, "" for a turn that did not end."""
    assert log.began is not None, "a Turn comes after Begin"
    at, last = messages[-1]
    words = _words(last)
    if not last["end_of_turn"] or not words:
        return ""
    first = next(receipt for receipt, message in messages if message["words"])
    samples.first_partial.append(first - log.began - _seconds(words[0]["start"]))
    samples.words += len(words)
    seen, final = _receipts(messages, words)
    for word, seen_at, final_at in zip(words, seen, final, strict=True):
        end = log.began + _seconds(word["end"])
        samples.first_seen.append(seen_at - end)
        samples.final.append(final_at - end)
    speech_end = _nearest_end(log.track.speech, _seconds(words[-1]["end"]))
    if speech_end is None:
        samples.unmatched += 1
    else:
        due = log.began + speech_end + _silence_asked(last, settings)
        samples.finalization.append((at, at - due))
    return str(last["transcript"])


def _receipts(
    messages: Sequence[tuple[float, dict[str, object]]], words: Sequence[dict[str, object]]
) -> tuple[list[float], list[float]]:
    """For each word of the turn, when it was first seen and when it was final."""
    forms = [plain(str(word["text"])) for word in words]
    seen: dict[int, float] = {}
    final: dict[int, float] = {}
    for at, message in messages:
        for index, word in enumerate(_words(message)[: len(forms)]):
            if index not in seen and plain(str(word["text"])) == forms[index]:
                seen[index] = at
            if index not in final and word["word_is_final"]:
                final[index] = at
    last = messages[-1][0]
    return (
        [seen.get(index, last) for index in range(len(forms))],
        [final.get(index, last) for index in range(len(forms))],
    )


def _words(message: dict[str, object]) -> list[dict[str, object]]:
    words = message["words"]
    assert isinstance(words, list), "a Turn has words"
    return words


def _seconds(milliseconds: object) -> float:
    assert isinstance(milliseconds, int), "times on the wire are whole milliseconds"
    return milliseconds / 1_000


def _nearest_end(speech: Sequence[tuple[float, float]], at: float) -> float | None:
    """The end of speech that belongs to a last word which ends at ``at``."""
    ends = [end for _, end in speech]
    index = bisect_left(ends, at)
    near = [end for end in ends[max(index - 1, 0) : index + 1] if abs(end - at) <= FARTHEST_END]
    return min(near, key=lambda end: abs(end - at), default=None)


def _silence_asked(turn: dict[str, object], settings: TurnSettings) -> float:
    """Seconds."""
    confidence = turn["end_of_turn_confidence"]
    assert isinstance(confidence, int | float), "a Turn has a confidence"
    if settings.family is Family.P:
        early = ends_sentence(str(turn["transcript"]).rpartition(" ")[2])
    else:
        early = settings.threshold < 1.0 and confidence >= settings.threshold
    samples = settings.min_turn_silence if early else settings.max_turn_silence
    return samples / SAMPLE_RATE


# -- summaries -------------------------------------------------------------------------------------


@frozen
class Spread:
    """Seconds; None where nothing was measured."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    if not ordered:
        return Spread(0, None, None, None)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Spread(len(ordered), at(0.50), at(0.95), at(0.99))


def word_error_rate(transcripts: Sequence[tuple[str, str]]) -> float | None:
    """Over all streams together, text in lower case without punctuation; None where nothing has a
    reference or jiwer (the ``bench`` extra) is not installed."""
    pairs = [(_bare(said), _bare(hypothesis)) for said, hypothesis in transcripts]
    pairs = [(said, hypothesis) for said, hypothesis in pairs if said]
    if not pairs:
        return None
    try:
        import jiwer
    except ModuleNotFoundError:
        return None
    return float(jiwer.wer([said for said, _ in pairs], [hypothesis for _, hypothesis in pairs]))


def _bare(text: str) -> str:
    return " ".join(filter(None, (plain(word) for word in text.split())))
