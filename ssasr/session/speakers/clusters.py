"""Voices of a session made into speakers, as they come (``OnlineClusters``) and all at once
(``cluster``). Pure.

Embeddings are compared by their cosine. A speaker is the direction of the sum of the embeddings
that were taken for theirs, each as long as the speech it is made from. The less speech, the more of
an embedding is chance, and the smaller its cosine with others of the same voice. How much is known
(``NOISE``), so two people with voices nearly alike are found to be two once both have spoken for
long. Two channels of one window are two people (cannot-link): the model that separated them saw
them side by side, which is more than an embedding knows. It is not believed where they are as alike
as one voice is with itself and never speak at once, or are so over all they say. One channel may be
several people: what it says in pieces is compared like everything else.
"""

import math
from collections.abc import Sequence

import numpy as np
from attrs import define, field, frozen
from numpy.typing import ArrayLike, NDArray

from ssasr.protocol.recognition import SAMPLE_RATE

Vector = NDArray[np.float32]

ENOUGH = SAMPLE_RATE
"""Samples of clean speech that make a new speaker; fewer only join one."""
SAME = 0.42
"""Cosine from which a voice is taken for a speaker that is known ..."""
KNOWN = 0.55
"""... and likeness, in parts of that of one voice."""
WITHIN = 0.42
"""Likeness from which pieces of one channel are one voice: mostly they are."""
ALIKE = 0.62
"""Cosine from which two voices of a window are one, if they never speak at once."""
NOISE = 8 * SAMPLE_RATE // 10
"""Samples of clean speech of which an embedding is half chance: the squared cosine of a reader's
pieces, of 0.5 to 3 s, with the sum of all he says is the share that is not. Two voices are as alike
as their cosine in parts of what it would be if they were one: Spearman's correction for
attenuation."""
MERGED = 0.62
"""Likeness, in parts of that of one voice, from which two clusters are one speaker, when everything
is known."""
SURE = 0.8
"""From which they are even though a window had them apart."""
LEAST_CERTAIN = 0.05
"""Of the squared length of a sum."""
PART = 0.3
"""Cosine from which a cluster of little speech is a part of another."""
LEAST_SPEAKER = 7 * SAMPLE_RATE // 2
"""Samples of clean speech below which speech is little; what overlapping windows both had counts
once. Where two people follow each other without a pause, a piece may hold both."""
BLOCK = 128
"""Voices that are compared with each other at first. Merging looks at all pairs after each merge:
an hour's voices at once would keep the event loop for a minute. Blocks of them take milliseconds
each, and leave few clusters to compare with each other."""


@frozen(eq=False)
class Sample:
    """A piece of what one voice says in one window, with enough clean speech for an embedding."""

    window: int
    """Where it ends, a stream sample: channels of one window cannot be linked."""
    channel: int
    clean: int
    fresh: int
    """Of ``clean``, what no window before had."""
    vector: Vector
    """Of length 1."""
    overlaps: bool = False
    """Somebody else of the window spoke at the same time."""
    start: int = 0
    end: int = 0
    """Of all of it, stream samples."""


@define(eq=False)
class OnlineClusters:
    """``limit``: speakers at most; further voices join the nearest."""

    limit: int | None = None
    _sums: list[Vector] = field(factory=list)
    _chance: list[float] = field(factory=list)
    """Of the squared lengths of the sums."""

    def assign(self, samples: Sequence[Sample]) -> list[int | None]:
        """The speakers of the voices of one window; None: not decided yet."""
        found: list[int | None] = [None] * len(samples)
        groups = _groups(samples)
        voices = [_sum([samples[n] for n in group]) for group in groups]
        likeness = self._likeness(voices)
        taken: dict[int, int] = {}
        for number in sorted(range(len(voices)), key=lambda n: (-_best(likeness[n]), n)):
            speaker = self._choose(voices[number], likeness[number], taken)
            if speaker is not None:
                taken[speaker] = voices[number].channel
            for n in groups[number]:
                found[n] = speaker
        return found

    def certainty(self, sample: Sample, speaker: int) -> float:
        return _certainty(self._likeness([sample])[0], speaker)

    def _likeness(self, samples: Sequence[Sample]) -> list[Vector]:
        if not self._sums:
            return [np.zeros(0, np.float32) for _ in samples]
        speakers = np.stack(self._sums)
        speakers /= np.linalg.norm(speakers, axis=1, keepdims=True)
        return [speakers @ sample.vector for sample in samples]

    def _choose(self, sample: Sample, likeness: Vector, taken: dict[int, int]) -> int | None:
        free = [k for k in range(len(likeness)) if taken.get(k, sample.channel) == sample.channel]
        nearest = max(free, key=lambda k: likeness[k], default=None)
        if nearest is None or likeness[nearest] < self._least(sample, nearest):
            double = int(likeness.argmax()) if len(likeness) else None
            if double in taken and likeness[double] >= ALIKE and not sample.overlaps:
                nearest = double
            elif self.limit is None or len(self._sums) < self.limit:
                if sample.clean < ENOUGH:
                    return None
                self._sums.append(np.zeros_like(sample.vector))
                self._chance.append(0.0)
                nearest = len(self._sums) - 1
            elif nearest is None:
                nearest = double
        if nearest is not None:
            self._sums[nearest] = self._sums[nearest] + sample.clean * sample.vector
            self._chance[nearest] += float(_chance(sample.clean))
        return nearest

    def _least(self, sample: Sample, speaker: int) -> float:
        """Cosine from which a voice is the speaker's: the longer both have spoken, the more."""
        total = self._sums[speaker]
        known = max(1 - self._chance[speaker] / float(total @ total), LEAST_CERTAIN)
        return max(SAME, KNOWN * math.sqrt(known * sample.clean / (sample.clean + NOISE)))


def _chance(clean: ArrayLike) -> NDArray[np.float64]:
    """Of the squared length of an embedding as long as its clean speech, what is chance."""
    length = np.asarray(clean, np.float64)
    chance: NDArray[np.float64] = length**2 * NOISE / (NOISE + length)
    return chance


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    """Those of one channel that are alike."""
    groups = []
    for channel in sorted({sample.channel for sample in samples}):
        numbers = [n for n, sample in enumerate(samples) if sample.channel == channel]
        merging = _Merging([samples[n] for n in numbers])
        while merging.merge_nearest(WITHIN):
            pass
        groups += [[numbers[n] for n in group] for group in merging.groups()]
    return groups


def _sum(samples: Sequence[Sample]) -> Sample:
    """All of them as one."""
    vector = np.sum([sample.clean * sample.vector for sample in samples], axis=0)
    vector /= np.linalg.norm(vector)
    clean, fresh = (sum(getattr(sample, name) for sample in samples) for name in ("clean", "fresh"))
    overlaps = any(sample.overlaps for sample in samples)
    return Sample(samples[0].window, samples[0].channel, clean, fresh, vector, overlaps)


def _best(likeness: Vector) -> float:
    return float(likeness.max()) if len(likeness) else 0.0


def cluster(samples: Sequence[Sample], limit: int | None = None) -> list[int]:
    """The speakers of all the voices of a session, numbered from 0. Agglomerative, by the cosine of
    the sums, block by block and then over what is left; what is too small to be a speaker joins the
    nearest, as does the last of those beyond ``limit``."""
    if not samples:
        return []
    merging = _Merging(samples)
    for begin in range(0, len(samples), BLOCK):
        while merging.merge_nearest(MERGED, slice(begin, begin + BLOCK)):
            pass
    merging.compact()
    while merging.merge_nearest(MERGED):
        pass
    while merging.merge_nearest(SURE, linked=True):
        pass
    merging.absorb_small()
    while limit is not None and merging.count > limit:
        if not merging.merge_nearest(-np.inf):
            merging.merge_nearest(-np.inf, linked=True)
    return merging.settled()


@frozen(eq=False)
class Speakers:
    """Whose all the voices of a session are: ``numbers``."""

    numbers: Sequence[int]
    _samples: Sequence[Sample]
    _sums: Vector
    _likeness: Vector
    """(voices, speakers): cosines."""

    @classmethod
    def of(cls, samples: Sequence[Sample], limit: int | None) -> "Speakers":
        numbers = cluster(samples, limit)
        vectors = np.stack([each.vector for each in samples]) if samples else np.zeros((0, 1))
        sums = np.zeros((max(numbers, default=-1) + 1, vectors.shape[1]), np.float32)
        for sample, speaker in zip(samples, numbers, strict=True):
            sums[speaker] += sample.clean * sample.vector
        return cls(numbers, samples, sums, vectors @ (sums.T / np.linalg.norm(sums, axis=1)))

    def certainty(self, voice: int, speaker: int) -> float:
        """How sure it is that the voice is the speaker's."""
        return _certainty(self._likeness[voice], speaker)

    def share(self, voice: int, other: int) -> float:
        """Of a voice that two speakers share, what is not of the one whose it is but the other's:
        from the sum of their directions, found without it, that is nearest to it."""
        sample, own = self._samples[voice], self.numbers[voice]
        one = self._sums[own] - sample.clean * sample.vector
        pair = np.stack([one, self._sums[other]])
        pair /= np.maximum(np.linalg.norm(pair, axis=1, keepdims=True), 1e-6)
        common, (of_one, of_other) = float(pair[0] @ pair[1]), pair @ sample.vector
        ones = max(float(of_one - common * of_other), 0.0)
        others = max(float(of_other - common * of_one), 0.0)
        return others / (ones + others) if one.any() and others else 0.0


def _certainty(likeness: Vector, speaker: int) -> float:
    """0 to 1, in hundredths: the likeness with the speaker's, in that and the next one's."""
    own = max(float(likeness[speaker]), 0.0)
    other = max((float(each) for k, each in enumerate(likeness) if k != speaker), default=0.0)
    return round(own / (own + max(other, 0.0)), 2) if own else 0.0


ALL = slice(None)


class _Merging:
    """Clusters that are merged one pair at a time; each begins as one voice."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        weights = np.array([sample.clean for sample in samples], np.float32)
        self._vectors = np.stack([sample.vector for sample in samples])
        self._weights = weights
        self._fresh = np.array([sample.fresh for sample in samples], np.float32)
        self._dots = (self._vectors @ self._vectors.T) * np.outer(weights, weights)
        self._chance = _chance(weights)
        """Of the squared lengths of the sums."""
        self._members = [[number] for number in range(len(samples))]
        self._alive = np.ones(len(samples), np.bool_)
        self._apart = _apart(samples, self._vectors)

    @property
    def count(self) -> int:
        return int(self._alive.sum())

    def _likeness(self, *, linked: bool, among: slice = ALL) -> Vector:
        """``linked``: also of those that were active apart."""
        dots, alive = self._dots[among, among], self._alive[among]
        lengths = np.sqrt(dots.diagonal())
        likeness: Vector = (dots / np.outer(lengths, lengths)).astype(np.float32)
        likeness[~alive] = likeness[:, ~alive] = -np.inf
        np.fill_diagonal(likeness, -np.inf)
        if not linked:
            likeness[self._apart[among, among]] = -np.inf
        return likeness

    def _of_one(self, among: slice) -> Vector:
        """What the cosines would be if all were one voice."""
        chance = self._chance[among] / self._dots.diagonal()[among]
        known = np.sqrt(np.maximum(1 - chance, LEAST_CERTAIN)).astype(np.float32)
        return np.outer(known, known)

    def merge_nearest(self, least: float, among: slice = ALL, *, linked: bool = False) -> bool:
        """False if no two clusters are so alike, in parts of what two of one voice would be.
        ``linked``: even those that were active apart."""
        likeness = self._likeness(linked=linked, among=among)
        likeness[likeness < least * self._of_one(among)] = -np.inf
        one, other = np.unravel_index(int(likeness.argmax()), likeness.shape)
        if not np.isfinite(likeness[one, other]):
            return False
        first = among.start or 0
        self._merge(first + int(one), first + int(other))
        return True

    def compact(self) -> None:
        """Forget the places of clusters that have become part of others."""
        kept = np.flatnonzero(self._alive)
        self._dots = self._dots[np.ix_(kept, kept)]
        self._apart = self._apart[np.ix_(kept, kept)]
        self._fresh, self._chance = self._fresh[kept], self._chance[kept]
        self._members = [self._members[k] for k in kept]
        self._alive = np.ones(len(kept), np.bool_)

    def _merge(self, one: int, other: int) -> None:
        self._dots[one] += self._dots[other]
        self._dots[:, one] += self._dots[:, other]
        self._apart[one] |= self._apart[other]
        self._apart[:, one] |= self._apart[:, other]
        self._fresh[one] += self._fresh[other]
        self._chance[one] += self._chance[other]
        self._members[one] += self._members[other]
        self._alive[other] = False

    def absorb_small(self) -> None:
        """Clusters of little speech join the nearest: those of next to none, and those that are a
        little like it, as a piece is that holds two people."""
        while self.count > 1:
            nearest = self._likeness(linked=True).max(axis=1)
            part = (self._fresh < ENOUGH) | ((self._fresh < LEAST_SPEAKER) & (nearest >= PART))
            small = np.where(self._alive & part, self._fresh, np.inf)
            least = int(small.argmin())
            if not np.isfinite(small[least]):
                return
            self._merge(int(self._likeness(linked=True)[least].argmax()), least)

    def groups(self) -> list[list[int]]:
        return [self._members[k] for k in np.flatnonzero(self._alive)]

    def settled(self) -> list[int]:
        """Each voice once more to the nearest cluster, numbered in the order of their first."""
        groups = self.groups()
        sums = np.stack([self._weights[group] @ self._vectors[group] for group in groups])
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        likeness = self._vectors @ sums.T
        found = np.empty(len(self._samples), np.int64)
        for number, group in enumerate(groups):
            found[group] = number
        likeness[np.arange(len(found)), found] += HYSTERESIS
        nearest = likeness.argmax(axis=1)
        numbers: dict[int, int] = {}
        return [numbers.setdefault(int(k), len(numbers)) for k in nearest]


HYSTERESIS = 0.05
"""By which another cluster must be nearer than its own for a voice to change to it."""


def _apart(samples: Sequence[Sample], vectors: Vector) -> NDArray[np.bool_]:
    """Which voices were active in one window."""
    windows = np.array([sample.window for sample in samples])
    overlaps = np.array([sample.overlaps for sample in samples])
    channels = np.array([sample.channel for sample in samples])
    same = (windows[:, None] == windows) & (channels[:, None] != channels)
    np.fill_diagonal(same, False)
    distinct = (overlaps[:, None] | overlaps) | (vectors @ vectors.T < ALIKE)
    apart: NDArray[np.bool_] = same & distinct
    return apart
