"""Who speaks when, put together from the windows of one session. Pure.

A voice is a piece of what one person says in a window. Windows overlap. What lies more than
``SETTLED`` before the end of a window is its own to say; the last stretch is said again by the
next one, which has seen how it went on. A voice that has no embedding of its own (it spoke too
little, or long before the window's end) is the voice of the window before that was active at the
same moments, or the nearest of its channel.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import define, field, frozen

from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.protocol.voices import Run, Voice, Voices
from ssasr.session.speakers.clusters import OnlineClusters, Sample, Vector

SETTLED = SAMPLE_RATE // 2
"""Samples before the end of a window of which it is sure."""
NEAR = SAMPLE_RATE // 2
"""A word without an active voice belongs to a voice that was active within this distance."""
LINKED = 0.5
"""Share of a voice's speech that the same voice of the window before must have been active in."""
KEPT = 90 * SAMPLE_RATE
"""How far back it is known who spoke when; of what was shown earlier the words remember."""
CHANGE = SAMPLE_RATE
"""Samples that another speaker must have spoken before a turn is theirs."""


@define(eq=False)
class Attribution:
    """One person, for as long as windows agree that it is one. ``number``: of its embedding among
    all of the session, None if it has none; ``speaker``: whom it was taken for at the time, and
    how surely, 0 to 1."""

    number: int | None = None
    speaker: int | None = None
    certainty: float | None = None


@frozen(eq=False)
class Span:
    start: int
    end: int
    louder: bool
    attribution: Attribution


@define(eq=False)
class Timeline:
    """``samples``: every embedding so far."""

    clusters: OnlineClusters
    samples: list[Sample] = field(factory=list)
    end: int = 0
    """Of the last window."""
    _spans: list[Span] = field(factory=list)
    _before: list[tuple[Voice, Attribution]] = field(factory=list)
    """The voices of the last window."""

    def update(self, window: Voices) -> None:
        """Windows come in the order of their ends; one that was received before changes nothing."""
        if window.end <= self.end:
            return
        voices = [(voice, Attribution()) for voice in window.voices]
        self._embed(window, voices)
        voices = [(voice, self._known(voice, voices, a)) for voice, a in voices]
        self._settle(voices)
        since = max(window.start, self.end - SETTLED)
        kept = [_clipped(span, window.end - KEPT, since) for span in self._spans]
        new = [
            _clipped(Span(run.start, run.end, run.louder, attribution), since, window.end)
            for voice, attribution in voices
            for run in voice.runs
        ]
        self._spans = sorted(
            (span for span in kept + new if span.start < span.end), key=lambda span: span.start
        )
        self._before, self.end = voices, window.end

    def _known(
        self, voice: Voice, voices: Sequence[tuple[Voice, Attribution]], own: Attribution
    ) -> Attribution:
        """Of a voice without an embedding: whoever was active at the same moments in the window
        before, or else what its channel says nearest to it."""
        if voice.embedding:
            return own
        shares = [_shared(voice.runs, other.runs) for other, _ in self._before]
        said = sum(run.end - run.start for run in voice.runs if run.start < self.end)
        if shares and max(shares) > LINKED * said:
            return self._before[int(np.argmax(shares))][1]
        near = [
            (_distance(voice, other), number)
            for number, (other, _) in enumerate(voices)
            if other.embedding and other.channel == voice.channel
        ]
        return voices[min(near)[1]][1] if near else own

    def _settle(self, voices: Sequence[tuple[Voice, Attribution]]) -> None:
        """A voice without a speaker so far gets the one that is active in its place now."""
        for before, unknown in self._before:
            if unknown.speaker is not None:
                continue
            shares = [_shared(before.runs, voice.runs) for voice, _ in voices]
            said = sum(run.end - run.start for run in before.runs)
            if shares and max(shares) > LINKED * said:
                attribution = voices[int(np.argmax(shares))][1]
                if attribution.speaker is not None:
                    unknown.number, unknown.speaker = attribution.number, attribution.speaker
                    unknown.certainty = attribution.certainty

    def _embed(self, window: Voices, voices: Sequence[tuple[Voice, Attribution]]) -> None:
        embedded = [(voice, attribution) for voice, attribution in voices if voice.embedding]
        samples = [self._sample(window, voice) for voice, _ in embedded]
        speakers = self.clusters.assign(samples)
        for (_, attribution), sample, speaker in zip(embedded, samples, speakers, strict=True):
            attribution.number, attribution.speaker = len(self.samples), speaker
            if speaker is not None:
                attribution.certainty = self.clusters.certainty(sample, speaker)
            self.samples.append(sample)

    def _sample(self, window: Voices, voice: Voice) -> Sample:
        fresh = sum(max(0, run.end - max(run.start, self.end)) for run in voice.runs)
        overlaps = not all(run.louder for run in voice.runs)
        clean, vector = voice.clean, _vector(voice)
        start, end = voice.runs[0].start, max(run.end for run in voice.runs)
        return Sample(
            window.end, voice.channel, clean, min(fresh, clean), vector, overlaps, start, end
        )

    def of_word(self, start: int, end: int) -> Attribution | None:
        """Whose a word between two stream samples is: of who was active in most of it, the louder
        first; else of who was active next to it."""
        best: dict[Attribution, float] = {}
        nearest, distance = None, float(NEAR)
        for span in self._spans:
            common = min(end, span.end) - max(start, span.start)
            if common > 0:
                best[span.attribution] = best.get(span.attribution, 0.0) + common * (
                    1.0 if span.louder else 0.1
                )
            elif -common < distance:
                nearest, distance = span.attribution, float(-common)
        return max(best, key=lambda attribution: best[attribution]) if best else nearest

    def change_after(self, start: int) -> int | None:
        """Where, after ``start``, another speaker begins than the one who spoke first, and has
        spoken for long enough that it is no interjection."""
        first: int | None = None
        other, since, spoken = None, 0, 0
        for span in self._spans:
            speaker = span.attribution.speaker
            begin = max(span.start, start)
            if not span.louder or speaker is None or span.end - begin <= 0:
                continue
            if first is None:
                first = speaker
            if speaker == first:
                other, spoken = None, 0
                continue
            if speaker != other:
                other, since, spoken = speaker, begin, 0
            spoken += min(span.end, self.end - SETTLED) - begin
            if spoken >= CHANGE:
                return since
        return None


def _vector(voice: Voice) -> Vector:
    vector = np.frombuffer(voice.embedding, "<f2").astype(np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def _distance(voice: Voice, other: Voice) -> int:
    """Samples between the two."""
    (start, end), (first, last) = (
        (each.runs[0].start, each.runs[-1].end) for each in (voice, other)
    )
    return max(start - last, first - end, 0)


def _clipped(span: Span, start: int, end: int) -> Span:
    if start <= span.start and span.end <= end:
        return span
    return Span(max(span.start, start), min(span.end, end), span.louder, span.attribution)


def _shared(runs: Iterable[Run], others: Sequence[Run]) -> int:
    """Samples during which both are active."""
    return sum(
        max(0, min(run.end, other.end) - max(run.start, other.start))
        for run in runs
        for other in others
    )
