"""Ogg pages to packets, in any cut (RFC 3533). Checksums are verified: a byte stream that lost its
place would otherwise decode to noise and not be noticed."""

import struct
import zlib

from attrs import define, field, frozen

from ssasr.audio.containers import MOST_PACKETS

_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule position, serial, sequence, checksum, segments."""
_CONTINUED = 1
_FIRST = 2
PACKET_LIMIT = 1 << 20
"""Bytes of one packet that runs over pages; Opus packets are at most some kilobytes."""


class OggError(ValueError):
    """These bytes are not an Ogg stream."""


@frozen
class Packet:
    """``first``: it opens a logical stream."""

    data: bytes
    first: bool = False


@define
class OggReader:
    """Bytes in, packets of the one logical stream (or of a chain of them) out."""

    _buffer: bytearray = field(factory=bytearray)
    _partial: bytearray = field(factory=bytearray)

    def read(self, data: bytes) -> list[Packet]:
        """The packets that these bytes complete. OggError when they cannot be Ogg."""
        self._buffer += data
        packets: list[Packet] = []
        while (size := self._page_size()) is not None:
            page = bytes(self._buffer[:size])
            del self._buffer[:size]
            packets += self._packets(page)
            if len(packets) > MOST_PACKETS:
                raise OggError("too many packets at once")
        return packets

    def _page_size(self) -> int | None:
        """Of the page at the start of the buffer, or None while it is incomplete."""
        head = bytes(self._buffer[:5])
        if head[:4] != b"OggS"[: len(head)] or (len(head) == 5 and head[4] != 0):
            raise OggError("no Ogg page where one must begin")
        if len(self._buffer) < _HEADER.size:
            return None
        table_end = _HEADER.size + self._buffer[_HEADER.size - 1]
        if len(self._buffer) < table_end:
            return None
        size = table_end + sum(self._buffer[_HEADER.size : table_end])
        return size if len(self._buffer) >= size else None

    def _packets(self, page: bytes) -> list[Packet]:
        _, _, flags, _, _, _, checksum, segments = _HEADER.unpack_from(page)
        if crc(page[:22] + bytes(4) + page[26:]) != checksum:
            raise OggError("damaged Ogg page")
        if not flags & _CONTINUED:
            self._partial.clear()
        lacing = page[_HEADER.size : _HEADER.size + segments]
        packets: list[Packet] = []
        position = _HEADER.size + segments
        for length in lacing:
            self._partial += page[position : position + length]
            position += length
            if len(self._partial) > PACKET_LIMIT:
                raise OggError("Ogg packet too long")
            if length < 255:
                first = bool(flags & _FIRST) and not packets
                packets.append(Packet(bytes(self._partial), first))
                self._partial.clear()
        return packets


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc(data: bytes) -> int:
    """Ogg's checksum: polynomial 0x04c11db7, most significant bit first, no inversion. It is zlib's
    seen in a mirror: bits of every byte reversed, both inversions undone, the result reversed."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")
