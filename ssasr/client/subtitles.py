"""Finished turns as text, SRT, VTT and JSON, with the speakers where they are known. Pure.

``web/subtitles.js`` has the same rules, so that the page and the command write the same file; a
test in the browser compares them.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import attrs
from attrs import define

from ssasr.protocol.joining import columns, join
from ssasr.protocol.messages import RevisedTurn, SpeakerRevision, Turn, TurnWord

LINE = 42
"""Columns of a line, two lines a cue: what broadcasters use. A Chinese character takes two."""
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
LONGEST = 6_000
"""Milliseconds that a cue may stay."""
PAUSE = 1_500
"""Milliseconds of silence that end a cue."""
SHORTEST = 1_000
"""Milliseconds that a cue stays, if the next one leaves the room."""


@define
class Cue:
    """One subtitle; milliseconds."""

    start: int
    end: int
    words: list[str]
    speaker: str | None = None

    @property
    def text(self) -> str:
        return join(self.words)


def revised(turns: Sequence[Turn], revision: SpeakerRevision) -> list[Turn]:
    """The turns with the speakers that the server thinks of them now."""
    changed = {each.turn_order: each for each in revision.revisions}
    return [
        attrs.evolve(turn, words=new.words, speaker_label=new.speaker_label)
        if (new := changed.get(turn.turn_order)) is not None
        else turn
        for turn in turns
    ]


def by_speaker(turn: Turn | RevisedTurn) -> list[tuple[str | None, str]]:
    """What each said without another's word between, in order."""
    runs = groupby(turn.words, key=lambda word: word.speaker)
    return [(speaker, join(word.text for word in words)) for speaker, words in runs]


def cues(turns: Iterable[Turn]) -> list[Cue]:
    result: list[Cue] = []
    for turn in turns:
        cue: Cue | None = None
        for word in turn.words:
            if cue is None or not _fits(cue, word):
                cue = Cue(word.start, word.end, [word.text], word.speaker)
                result.append(cue)
            else:
                cue.end = word.end
                cue.words.append(word.text)
    for index, cue in enumerate(result):
        least = cue.start + SHORTEST
        if index + 1 < len(result):
            least = min(least, result[index + 1].start)
        cue.end = max(cue.end, least)
    return result


def _fits(cue: Cue, word: TurnWord) -> bool:
    sentence_over = cue.text.endswith(SENTENCE_ENDS) and columns(cue.text) >= LINE
    return (
        word.speaker == cue.speaker
        and columns(join([*cue.words, word.text])) <= 2 * LINE
        and word.end - cue.start <= LONGEST
        and word.start - cue.end < PAUSE
        and not sentence_over
    )


def wrapped(words: Sequence[str]) -> str:
    """On two lines if they are longer than one, as even as the words allow."""
    text = join(words)
    if columns(text) <= LINE or len(words) == 1:
        return text
    splits = [(join(words[:i]), join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(splits, key=lambda lines: max(map(columns, lines))))


def text(turns: Sequence[Turn]) -> str:
    """A line a turn, and one for each of several speakers in it."""
    said = [each for turn in turns for each in by_speaker(turn)]
    return "".join(f"{_named(speaker)}{words}\n" for speaker, words in said)


def _named(speaker: str | None) -> str:
    return "" if speaker is None else f"{speaker}: "


def _led(cue: Cue) -> list[str]:
    """Its words, and before them who says them."""
    return cue.words if cue.speaker is None else [f"{cue.speaker}:", *cue.words]


def srt(turns: Sequence[Turn]) -> str:
    """SubRip."""
    blocks = [
        f"{number}\n{_timestamp(cue.start, ',')} --> {_timestamp(cue.end, ',')}\n"
        f"{wrapped(_led(cue))}\n"
        for number, cue in enumerate(cues(turns), 1)
    ]
    return "\n".join(blocks)


def vtt(turns: Sequence[Turn]) -> str:
    """WebVTT."""
    blocks = [
        f"\n{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}\n"
        f"{_voice(cue.speaker)}{_escaped(wrapped(cue.words))}\n"
        for cue in cues(turns)
    ]
    return "WEBVTT\n" + "".join(blocks)


def _voice(speaker: str | None) -> str:
    return "" if speaker is None else f"<v {speaker}>"


def to_json(turns: Sequence[Turn]) -> str:
    """Turns and words with their times in milliseconds."""
    return (
        json.dumps({"turns": [_plain(turn) for turn in turns]}, ensure_ascii=False, indent=2) + "\n"
    )


def _plain(turn: Turn) -> dict[str, object]:
    language = {"language_code": turn.language_code} if turn.language_code else {}
    speaker = {"speaker": turn.speaker_label} if turn.speaker_label else {}
    names = ("text", "start", "end", "confidence", *(("speaker",) if speaker else ()))
    wanted = attrs.filters.include(*names)
    return {
        "transcript": join(word.text for word in turn.words),
        "start": turn.words[0].start,
        "end": turn.words[-1].end,
        "end_of_turn_confidence": turn.end_of_turn_confidence,
        **language,
        **speaker,
        "words": [attrs.asdict(word, filter=wanted) for word in turn.words],
    }


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(ms: int, mark: str) -> str:
    seconds, ms = divmod(ms, 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{ms:03}"


FORMATS: Mapping[str, Callable[[Sequence[Turn]], str]] = MappingProxyType(
    {"text": text, "srt": srt, "vtt": vtt, "json": to_json}
)
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json"}
)
