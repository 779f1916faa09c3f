"""What was said, in the formats of OpenAI's endpoints. Pure."""

import json
import zlib
from collections.abc import Iterable, Sequence
from math import log

from attrs import define, evolve, field, frozen

from ssasr.gateway.openai.languages import name_of
from ssasr.gateway.openai.transcription import Piece
from ssasr.protocol import subtitles
from ssasr.protocol.joining import join, space_between
from ssasr.protocol.messages import Turn, TurnWord
from ssasr.protocol.recognition import SAMPLE_RATE, Word
from ssasr.protocol.text import ends_sentence
from ssasr.session.casing import first_word, is_stray_full_stop, sentence_continues
from ssasr.session.speakers.labels import PENDING, SpeakerLabels

LONGEST = 7 * SAMPLE_RATE
"""Samples of a segment, or of a subtitle."""
SHORTEST = 2 * SAMPLE_RATE
"""After which a sentence's end ends it."""
PAUSE = SAMPLE_RATE
"""Silence that ends it."""


@frozen
class SpokenSegment:
    """A segment: some words that belong together."""

    words: tuple[Word, ...]
    speaker: str | None = None

    @property
    def text(self) -> str:
        return join(word.text for word in self.words)

    @property
    def start(self) -> int:
        return self.words[0].start

    @property
    def end(self) -> int:
        return self.words[-1].end


def segments(words: Sequence[Word]) -> list[SpokenSegment]:
    found: list[list[Word]] = []
    for word in words:
        if not found or _ends_before(found[-1], word):
            found.append([])
        found[-1].append(word)
    return [SpokenSegment(tuple(each)) for each in found]


def _ends_before(segment: Sequence[Word], word: Word) -> bool:
    first, last = segment[0], segment[-1]
    over = ends_sentence(last.text) and last.end - first.start >= SHORTEST
    return over or word.start - last.end >= PAUSE or word.end - first.start > LONGEST


@define(eq=False)
class Transcript:
    """``add`` the pieces in their order."""

    speakers: SpeakerLabels | None = None
    sent: bool = False
    """What ``add`` returns is sent at once, and stands."""
    segments: list[SpokenSegment] = field(factory=list)
    text: str = ""
    language: str | None = None
    samples: int = 0

    def add(self, piece: Piece) -> tuple[str, list[SpokenSegment]]:
        """The text that it adds, and the segments."""
        self.samples = piece.end
        self.language = self.language or piece.language
        words = self._following(piece.words)
        new = segments(words)
        if self.speakers is not None:
            self.speakers.update(piece.voices)
            new = [each for one in new for each in self._labelled(one, self.speakers)]
        self.segments += new
        said = join(word.text for word in words)
        added = space_between(self.text[-1:], said[:1]) + said
        self.text += added
        return added, new

    def _following(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """The same as they go on from what there is: a window is cut where it is quiet, often in
        mid-sentence (``session.casing``)."""
        if not words or not self.segments:
            return words
        segment, first = self.segments[-1], words[0]
        last = segment.words[-1]
        silence = (first.start - last.end) * 1_000 // SAMPLE_RATE
        if not self.sent and is_stray_full_stop(last.text, first.text, silence):
            last = evolve(last, text=last.text[:-1])
            self.segments[-1] = evolve(segment, words=(*segment.words[:-1], last))
            self.text = self.text.removesuffix(".")
        text = first_word(first.text, continues=sentence_continues(last.text, silence))
        return (evolve(first, text=text), *words[1:])

    def _labelled(self, spoken: SpokenSegment, speakers: SpeakerLabels) -> list[SpokenSegment]:
        """The same with who says it; in parts where several do."""
        per_ms = SAMPLE_RATE // 1_000
        words = tuple(
            TurnWord(each.text, each.start // per_ms, each.end // per_ms, each.confidence, True)
            for each in spoken.words
        )
        turn = Turn(0, True, True, spoken.text, spoken.text, 1.0, words)
        parts: list[SpokenSegment] = []
        for word, labelled in zip(spoken.words, speakers.label(turn).words, strict=True):
            speaker = labelled.speaker or PENDING
            if parts and parts[-1].speaker == speaker:
                parts[-1] = evolve(parts[-1], words=(*parts[-1].words, word))
            else:
                parts.append(SpokenSegment((word,), speaker))
        return parts

    @property
    def words(self) -> Iterable[Word]:
        return (word for segment in self.segments for word in segment.words)

    @property
    def usage(self) -> dict[str, object]:
        return {"type": "duration", "seconds": -(-self.samples // SAMPLE_RATE)}


def to_json(transcript: Transcript) -> dict[str, object]:
    return {"text": transcript.text, "usage": transcript.usage}


def verbose(transcript: Transcript, task: str, granularities: Sequence[str]) -> dict[str, object]:
    """``granularities``: ``word`` and ``segment``."""
    whole: dict[str, object] = {
        "task": task,
        "language": name_of("en" if task == "translate" else transcript.language),
        "duration": seconds(transcript.samples),
        "text": transcript.text,
    }
    if "word" in granularities:
        whole["words"] = [
            {"word": word.text, "start": seconds(word.start), "end": seconds(word.end)}
            for word in transcript.words
        ]
    if "segment" in granularities:
        whole["segments"] = [_segment(*each) for each in enumerate(transcript.segments)]
    return {**whole, "usage": transcript.usage}


def _segment(number: int, spoken: SpokenSegment) -> dict[str, object]:
    """What is Whisper's own and has no counterpart here is empty."""
    text = spoken.text.encode()
    logprobs = [log(max(word.confidence, 1e-6)) for word in spoken.words]
    return {
        "id": number,
        "seek": 0,
        "start": seconds(spoken.start),
        "end": seconds(spoken.end),
        "text": spoken.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logprobs) / len(logprobs), 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": 0.0,
    }


def diarized(transcript: Transcript) -> dict[str, object]:
    return {
        "task": "transcribe",
        "duration": seconds(transcript.samples),
        "text": transcript.text,
        "segments": [diarized_segment(*each) for each in enumerate(transcript.segments)],
        "usage": transcript.usage,
    }


def diarized_segment(number: int, spoken: SpokenSegment) -> dict[str, object]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number:03}",
        "start": seconds(spoken.start),
        "end": seconds(spoken.end),
        "text": spoken.text,
        "speaker": spoken.speaker,
    }


def plain(transcript: Transcript) -> str:
    return transcript.text + "\n"


def srt(transcript: Transcript) -> str:
    return subtitles.srt((*_milliseconds(each), each.text) for each in transcript.segments)


def vtt(transcript: Transcript) -> str:
    return subtitles.vtt(
        (*_milliseconds(each), subtitles.escaped(each.text)) for each in transcript.segments
    )


def _milliseconds(spoken: SpokenSegment) -> tuple[int, int]:
    """Where it starts and ends."""
    return spoken.start * 1_000 // SAMPLE_RATE, spoken.end * 1_000 // SAMPLE_RATE


def event(kind: str, **fields: object) -> bytes:
    """A server-sent event."""
    content = json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"data: {content}\n\n".encode()


def seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE, 3)
