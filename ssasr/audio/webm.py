"""WebM to Opus packets, in any cut: what a browser's MediaRecorder sends (RFC 8794, RFC 9559).

Elements that hold others are opened, those that are wanted are taken whole, all else is
skipped. A live recording's segment and clusters are of unknown length, which is no matter here:
nothing depends on where one ends.
"""

import enum

from attrs import define, field

from ssasr.audio.containers import MOST_PACKETS


class Element(enum.IntEnum):
    """Those that are looked at; the names are the specification's."""

    EBML = 0x1A45DFA3
    SEGMENT = 0x18538067
    CLUSTER = 0x1F43B675
    TRACKS = 0x1654AE6B
    TRACK_ENTRY = 0xAE
    NUMBER = 0xD7
    CODEC = 0x86
    PRIVATE = 0x63A2
    BLOCK_GROUP = 0xA0
    BLOCK = 0xA1
    SIMPLE_BLOCK = 0xA3


_WALKED = frozenset(
    {Element.SEGMENT, Element.CLUSTER, Element.TRACKS, Element.TRACK_ENTRY, Element.BLOCK_GROUP}
)
_WANTED = frozenset(
    {Element.NUMBER, Element.CODEC, Element.PRIVATE, Element.BLOCK, Element.SIMPLE_BLOCK}
)
_LACED = 0x06
ELEMENT_LIMIT = 1 << 20
"""Bytes of one wanted element."""
MOST_ELEMENTS = 4 * MOST_PACKETS
"""In one message: a packet may have a group to itself, and its length beside it."""


class WebmError(ValueError):
    """These bytes are not Opus in WebM."""


@define
class WebmReader:
    """Bytes in, packets of the first Opus track out."""

    pre_skip: int = 0
    """Samples at 48 kHz to drop at the start."""
    _buffer: bytearray = field(factory=bytearray)
    _skip: int = 0
    """Bytes to come of an element that is skipped."""
    _began: bool = False
    _number: int = 0
    """Of the track that is being described."""
    _track: int | None = None
    """That of the audio."""

    def packets(self, data: bytes) -> list[bytes]:
        """The packets that these bytes complete. Raises WebmError."""
        self._buffer += data
        packets: list[bytes] = []
        elements = 0
        while self._skipped() and (head := self._head()) is not None:
            name, size, start = head
            elements += 1
            if elements > MOST_ELEMENTS:
                raise WebmError("too many elements at once")
            if not self._began:
                if name != Element.EBML:
                    raise WebmError("no WebM stream begins so")
                self._began = True
            if name in _WALKED:
                del self._buffer[:start]
            elif name not in _WANTED:
                if size is None:
                    raise WebmError(f"element {name:x} is of unknown length")
                self._skip = start + size
            elif not self._take(name, size, start, packets):
                break
        return packets

    def _skipped(self) -> bool:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped
        return not self._skip

    def _head(self) -> tuple[int, int | None, int] | None:
        """Name, length (None: unknown) and width of the head of the element at the front."""
        name = _variable(self._buffer, 0, keep_marker=True)
        if name is None:
            return None
        size = _variable(self._buffer, name[1], keep_marker=False)
        if size is None:
            return None
        value, end = size
        unknown = value == (1 << 7 * (end - name[1])) - 1
        return name[0], None if unknown else value, end

    def _take(self, name: int, size: int | None, start: int, packets: list[bytes]) -> bool:
        """False: it is not all there."""
        if size is None or size > ELEMENT_LIMIT:
            raise WebmError(f"element {name:x} is too long")
        if len(self._buffer) < start + size:
            return False
        body = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        match name:
            case Element.NUMBER:
                self._number = int.from_bytes(body, "big")
            case Element.CODEC:
                if self._track is None and body.rstrip(b"\0") == b"A_OPUS":
                    self._track = self._number
            case Element.PRIVATE:
                if self._number == self._track and body.startswith(b"OpusHead") and size >= 19:
                    self.pre_skip = int.from_bytes(body[10:12], "little")
            case _:
                packets += self._packet(body)
        return True

    def _packet(self, block: bytes) -> list[bytes]:
        if self._track is None:
            raise WebmError("the WebM stream holds no Opus")
        number = _variable(block, 0, keep_marker=False)
        if number is None or len(block) < number[1] + 3:
            raise WebmError("a damaged block")
        if number[0] != self._track:
            return []
        if block[number[1] + 2] & _LACED:
            raise WebmError("several packets in one block")
        return [block[number[1] + 3 :]]


def _variable(data: bytes | bytearray, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """An integer of variable width at ``at`` and where it ends; None while it is incomplete."""
    if at >= len(data):
        return None
    width = 9 - data[at].bit_length()
    if width > 8:
        raise WebmError("no element begins so")
    if at + width > len(data):
        return None
    value = int.from_bytes(data[at : at + width], "big")
    return value if keep_marker else value & ~(1 << 7 * width), at + width
