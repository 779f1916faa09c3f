"""Finished turns as text, SRT, VTT and JSON, with the speakers where they are known. Pure.

``web/subtitles.js`` writes the same; a test in the browser compares them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import attrs

from ssasr.client.captions import cues
from ssasr.protocol import subtitles
from ssasr.protocol.joining import join
from ssasr.protocol.messages import RevisedTurn, SpeakerRevision, Turn


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


def text(turns: Sequence[Turn]) -> str:
    """A line a turn, and one for each of several speakers in it."""
    said = [each for turn in turns for each in by_speaker(turn)]
    return "".join(f"{_named(speaker)}{words}\n" for speaker, words in said)


def _named(speaker: str | None) -> str:
    return "" if speaker is None else f"{speaker}: "


def srt(turns: Sequence[Turn]) -> str:
    """SubRip."""
    return subtitles.srt(
        (cue.start, cue.end, _named(cue.speaker) + "\n".join(cue.lines)) for cue in cues(turns)
    )


def vtt(turns: Sequence[Turn]) -> str:
    """WebVTT."""
    return subtitles.vtt(
        (cue.start, cue.end, _voice(cue.speaker) + subtitles.escaped("\n".join(cue.lines)))
        for cue in cues(turns)
    )


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


FORMATS: Mapping[str, Callable[[Sequence[Turn]], str]] = MappingProxyType(
    {"text": text, "srt": srt, "vtt": vtt, "json": to_json}
)
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json"}
)
