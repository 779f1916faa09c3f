"""The audio that a stream keeps: what the model has not seen, and what it may have to go back to.

It stays in the pieces it came in: nothing is copied when it arrives, and what is read is copied
once, where the pieces of a whole batch are put together (``streams.prepare``). Pure.
"""

from bisect import bisect_right

from ssasr.protocol.recognition import SAMPLE_RATE

SHORT_PIECE = 1_600
"""Samples. A piece that is shorter takes in the next one, so that a stream which comes in crumbs is
not kept as crumbs."""
DISCARD_STEP = SAMPLE_RATE
"""Samples discarded in one go: each time moves what is left."""


class PcmBuffer:
    """Little-endian signed 16-bit mono samples from position ``kept_from`` to ``end``."""

    __slots__ = ("_pieces", "_starts", "end", "kept_from")

    def __init__(self, start: int) -> None:
        self.kept_from = self.end = start
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        """Position of the first sample of each piece."""

    def append(self, pcm: bytes) -> None:
        """Whole samples, at least one."""
        pieces = self._pieces
        if pieces and len(pieces[-1]) < 2 * SHORT_PIECE:
            pieces[-1] += pcm
        else:
            pieces.append(pcm)
            self._starts.append(self.end)
        self.end += len(pcm) // 2

    def read(self, first: int, upto: int) -> list[bytes]:
        """The samples from ``first`` up to ``upto``, in pieces; they stay in the buffer."""
        assert self.kept_from <= first <= upto <= self.end, "the audio asked for is not kept"
        if first == upto:
            return []
        pieces, starts = self._pieces, self._starts
        number = len(starts) - 1
        start = starts[number]
        if start > first:
            number = bisect_right(starts, first) - 1
            start = starts[number]
        piece = pieces[number]
        if start == first and len(piece) == 2 * (upto - first):
            return [piece]
        found = []
        while True:
            part = piece[2 * max(first - start, 0) : 2 * (upto - start)]
            found.append(part)
            start += len(piece) // 2
            if start >= upto:
                return found
            number += 1
            piece = pieces[number]

    def discard_before(self, before: int) -> None:
        """What lies before that position is not needed any more."""
        if before - self.kept_from <= DISCARD_STEP:
            return
        whole = bisect_right(self._starts, before) - 1
        del self._pieces[:whole], self._starts[:whole]
        self.kept_from = self._starts[0]

    @property
    def samples(self) -> int:
        """Samples kept."""
        return self.end - self.kept_from
