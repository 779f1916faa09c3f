"""Plain WebSocket data frames, cut out of a stream of bytes ahead of the WebSocket library.

Nearly every frame of a session is one whole message: not fragmented, of moderate length, audio or a
small text. Those are read and written here, because a general library takes ten times as long for
each. Everything else is left to it, byte for byte and in order: the handshake, control frames,
fragments, long messages, and all that breaks a rule, which is for the library to name and answer.

Pure: bytes in, pieces out. RFC 6455, section 5.2.
"""

import struct
import sys

import numpy as np
from attrs import define, frozen

LONGEST = 128 * 1024
"""Bytes of the longest payload that is looked at here; a second of 48 kHz PCM is 96,000."""
NO_MASK = bytes(4)
"""A key that changes nothing."""

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _MASKED = 0x80, 0x80
_LONGEST_CONTROL = 125


def apply_mask(data: bytes, key: bytes) -> bytes:
    """XOR with the key of four bytes, over and over; its own inverse."""
    if key == NO_MASK:
        return data
    size = len(data)
    if size % 4:
        data += bytes(-size % 4)
    masked = np.frombuffer(data, np.uint32) ^ np.uint32(int.from_bytes(key, sys.byteorder))
    return masked.tobytes()[:size]


def encode_message(message: str | bytes, key: bytes | None) -> bytes:
    """One whole frame. ``key``: a client's mask; None for a server, which does not mask."""
    if isinstance(message, str):
        return encode_frame(_TEXT, message.encode(), key)
    return encode_frame(_BINARY, message, key)


def encode_ping(key: bytes | None) -> bytes:
    return encode_frame(_PING, b"", key)


def encode_frame(opcode: int, payload: bytes, key: bytes | None) -> bytes:
    """One whole frame, as ``encode_message``."""
    masked = 0 if key is None else _MASKED
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, masked | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FIN | opcode, masked | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, masked | 127, size)
    if key is None:
        return head + payload
    return head + key + (apply_mask(payload, key) if payload else b"")


@frozen
class FramePart:
    """Bytes as they came. ``message``: what they say, where they are one plain frame. ``ends``:
    they are the last of a message."""

    raw: bytes
    message: str | bytes | None = None
    ends: bool = False
    is_our_pong: bool = False
    """Without a payload, as ``encode_ping``'s: of a sign of life nothing is left to be done."""


@define
class FrameSplitter:
    """``masked``: whether the peer masks, as clients do. Frames come out whole; a long one comes as
    it came in. Once a frame breaks a rule, or closes, all that follows is one piece a call."""

    masked: bool
    _rest: bytes = b""
    _fragmented: bool = False
    """Inside a message of several frames."""
    _left_of_long: int = 0
    """Bytes left of a long frame."""
    _ends: bool = False
    """That frame is the last of its message."""
    _pass_through: bool = False

    def whole(self, data: bytes) -> str | bytes | None:
        """The message, if ``data`` is just one plain frame, as nearly always; if not, ``feed``."""
        size = len(data)
        if size < 2 or self._rest or self._left_of_long or self._pass_through or self._fragmented:
            return None
        first, length, start = data[0], data[1], 2
        if self.masked:
            length ^= _MASKED
            start = 6
        if length == 126 and size >= 4:
            length = data[2] << 8 | data[3]
            start += 2
            if length < 126:
                return None
        elif length >= 126:
            return None
        if start + length != size or first not in (_FIN | _BINARY, _FIN | _TEXT):
            return None
        return self._message(data, start, size, first & 0x0F)

    def feed(self, data: bytes) -> list[FramePart]:
        """The pieces that ``data`` completes."""
        if self._rest:
            data = self._rest + data
        parts = []
        at = 0
        while at < len(data):
            if self._pass_through:
                parts.append(FramePart(data[at:]))
                at = len(data)
            elif self._left_of_long:
                size = min(self._left_of_long, len(data) - at)
                self._left_of_long -= size
                parts.append(
                    FramePart(data[at : at + size], None, self._ends and not self._left_of_long)
                )
                at += size
            elif (part := self._split(data, at)) is not None:
                parts.append(part)
                at += len(part.raw)
            elif not (self._pass_through or self._left_of_long):
                break  # the frame is not all there yet
        self._rest = data[at:]
        return parts

    def _split(self, data: bytes, at: int) -> FramePart | None:
        """The frame at ``at``; None if it is not all there, or not for us to cut."""
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        size, start = second & 0x7F, at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(data) - start < width:
                return None
            size = int.from_bytes(data[start : start + width], "big")
            start += width
            self._pass_through = size < (126 if width == 2 else 1 << 16)  # longer than it need be
        if (second >= _MASKED) != self.masked or not self._is_legal(first, size):
            self._pass_through = True
        if self._pass_through:
            return None
        start += 4 if self.masked else 0
        end = start + size
        opcode = first & 0x0F
        if size > LONGEST:
            self._left_of_long, self._ends = end - at, first >= _FIN
            self._note(first, opcode)
            return None
        if len(data) < end:
            return None
        raw = data if at == 0 and end == len(data) else data[at:end]
        message = None
        if first >= _FIN and opcode in (_TEXT, _BINARY):
            message = self._message(data, start, end, opcode)
        self._note(first, opcode)
        is_data = opcode < _CLOSE
        return FramePart(raw, message, is_data and first >= _FIN, opcode == _PONG and not size)

    def _message(self, data: bytes, start: int, end: int, opcode: int) -> str | bytes | None:
        payload = data[start:end]
        if self.masked and payload:
            payload = apply_mask(payload, data[start - 4 : start])
        if opcode == _BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None

    def _is_legal(self, first: int, size: int) -> bool:
        opcode = first & 0x0F
        if first & 0x70:
            return False
        if opcode in (_CLOSE, _PING, _PONG):
            return first >= _FIN and size <= _LONGEST_CONTROL
        return opcode == 0 if self._fragmented else opcode in (_TEXT, _BINARY)

    def _note(self, first: int, opcode: int) -> None:
        if opcode < _CLOSE:
            self._fragmented = first < _FIN
        self._pass_through = opcode == _CLOSE
