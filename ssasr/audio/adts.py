"""ADTS frames out of a byte stream, in any cut (ISO 13818-7, 6.2)."""

_HEADER = 7
"""Bytes before the optional checksum; the frame's length is in there."""


class AdtsError(ValueError):
    """These bytes are not ADTS."""


class AdtsReader:
    """Bytes in, whole frames with their headers out; an incomplete frame waits."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def read(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete. AdtsError where no frame begins: the libraries'
        own parsers skip such bytes, and a client that sends something else would never know."""
        self._buffer += data
        frames = []
        position = 0
        while (size := self._frame_size(position)) is not None:
            frames.append(bytes(self._buffer[position : position + size]))
            position += size
        del self._buffer[:position]
        return frames

    def _frame_size(self, position: int) -> int | None:
        header = self._buffer[position : position + _HEADER]
        sync = len(header) < 2 or (header[0] == 0xFF and header[1] & 0xF6 == 0xF0)
        if not sync or (len(header) == 1 and header[0] != 0xFF):
            raise AdtsError("no ADTS frame where one must begin")
        if len(header) < _HEADER:
            return None
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        if size <= _HEADER:
            raise AdtsError("empty ADTS frame")
        return size if len(self._buffer) - position >= size else None
