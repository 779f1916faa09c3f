"""The audio that a stream keeps: what the model has not processed, and what it may go back to.

It is kept in the pieces in which it arrived, without copying; ``streams.prepare`` copies what is
read once, into the array of the whole batch. Pure.
"""

from bisect import bisect_right

from ssasr.protocol.recognition import SAMPLE_RATE

SHORT_PIECE = 1_600
"""Samples. A shorter piece is joined with the next one, so that a stream of tiny messages is not
kept as tiny pieces."""
DISCARD_STEP = SAMPLE_RATE
"""Samples discarded at once, because each time moves the rest of the list."""


class PcmBuffer:
    """Little-endian signed 16-bit mono samples from position ``kept_from`` to ``end``."""

    __slots__ = ("_pieces", "_starts", "end", "kept_from")

    def __init__(self, start: int) -> None:
        self.kept_from = self.end = start
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        """Position of the first sample of each piece."""

    def append(self, pcm: bytes) -> None:
        """Append whole samples, at least one."""
        pieces = self._pieces
        if pieces and len(pieces[-1]) < 2 * SHORT_PIECE:
            pieces[-1] += pcm
        else:
            pieces.append(pcm)
            self._starts.append(self.end)
        self.end += len(pcm) // 2

    def read(self, first: int, upto: int) -> list[bytes]:
        """The samples from ``first`` up to ``upto``, in pieces. They stay in the buffer."""
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
        """Drop audio before that position, once there is more than ``DISCARD_STEP`` of it."""
        if before - self.kept_from <= DISCARD_STEP:
            return
        whole = bisect_right(self._starts, before) - 1
        del self._pieces[:whole], self._starts[:whole]
        self.kept_from = self._starts[0]

    @property
    def samples(self) -> int:
        """Samples kept."""
        return self.end - self.kept_from
