"""WebSocket frames: from bytes to messages and control frames, and back (RFC 6455, section 5).

A general library takes ten times as long for the short whole messages that nearly all of a session
consists of, and answers pings only when the application reads; hence our own. Pure.
"""

import struct
import sys

import numpy as np
from attrs import define, field, frozen

NO_MASK = bytes(4)
"""The masking key that changes nothing."""

_MORE, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_LONGEST_CONTROL = 125
_LENGTHS = {126: 2, 127: 8}
"""Values of the 7-bit length field that say the length follows, and in how many bytes."""

PROTOCOL_ERROR, INVALID_DATA, NO_STATUS, ABNORMAL = 1_002, 1_007, 1_005, 1_006


def apply_mask(data: bytes, key: bytes) -> bytes:
    """``data`` XOR the repeated four bytes of ``key``. Masks and unmasks."""
    if key == NO_MASK:
        return data
    size = len(data)
    if size % 4:
        data += bytes(-size % 4)
    masked = np.frombuffer(data, np.uint32) ^ np.uint32(int.from_bytes(key, sys.byteorder))
    return masked.tobytes()[:size]


# -- writing ---------------------------------------------------------------------------------------


def encode_message(message: str | bytes, key: bytes | None) -> bytes:
    """A message as one frame. ``key``: a client's mask; None for a server, which does not mask."""
    if isinstance(message, str):
        return encode_frame(_TEXT, message.encode(), key)
    return encode_frame(_BINARY, message, key)


def encode_ping(key: bytes | None) -> bytes:
    """As ``encode_message``."""
    return encode_frame(_PING, b"", key)


def encode_pong(payload: bytes, key: bytes | None) -> bytes:
    """As ``encode_message``."""
    return encode_frame(_PONG, payload, key)


def encode_close(code: int, reason: str, key: bytes | None) -> bytes:
    """As ``encode_message``. A reason of more than 123 bytes is cut off."""
    if code in (NO_STATUS, ABNORMAL):  # never on the wire: they stand for "no code"
        return encode_frame(_CLOSE, b"", key)
    text = reason.encode()[: _LONGEST_CONTROL - 2].decode(errors="ignore").encode()
    return encode_frame(_CLOSE, struct.pack("!H", code) + text, key)


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


# -- reading ---------------------------------------------------------------------------------------


@frozen
class Ping:
    payload: bytes


@frozen
class Close:
    """The peer closes; or, with ``fault``, the peer has broken the protocol, and the connection is
    to be closed with this code and reason."""

    code: int
    reason: str = ""
    fault: bool = False


Event = str | bytes | Ping | Close


class _Broken(Exception):
    """The peer has broken the protocol."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@define
class FrameReader:
    """Turns the bytes of one direction into events.

    ``masked``: whether the peer masks its frames, as clients do. ``limit``: bytes of the longest
    message; of a longer one the first ``limit + 1`` bytes are returned as the message. There are no
    events after ``Close``."""

    masked: bool
    limit: int
    _waiting: list[bytes] = field(factory=list)
    """The parts of an incomplete frame."""
    _missing: int = 0
    """Bytes still needed before the incomplete frame can be parsed further."""
    _skip: int = 0
    """Bytes to come that are dropped: the rest of a frame that is too long."""
    _opcode: int = _MORE
    """Of a message in fragments; _MORE outside of one."""
    _fragments: bytearray = field(factory=bytearray)
    """No list: a peer may send empty ones for ever."""
    _over: bool = False
    """There was a ``Close``."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        if self._missing:
            self._waiting.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._waiting)
            self._waiting, self._missing = [], 0
        events: list[Event] = []
        at, size = 0, len(data)
        while at < size and not self._over:
            if self._skip:
                skipped = min(self._skip, size - at)
                self._skip -= skipped
                at += skipped
                continue
            try:
                end = self._read_frame(data, at, events)
            except _Broken as broken:
                end = size
                self._over = True
                events.append(Close(broken.code, broken.text, fault=True))
            if end > size:
                self._waiting.append(data[at:] if at else data)
                self._missing = end - size
            at = end
        return events

    def _read_frame(self, data: bytes, at: int, events: list[Event]) -> int:
        """Parse the frame at ``at`` and append its event, if any. Returns the index at which the
        frame ends, or, if it is incomplete, the length that ``data`` must have to go on."""
        size, start = len(data), at + 2
        if size < start:
            return start
        first, length = data[at], data[at + 1]
        if (length >= _MASKED) is not self.masked:
            raise _Broken(PROTOCOL_ERROR, "masked as the other side is")
        length &= 0x7F
        if length >= 126:
            width = _LENGTHS[length]
            if size < start + width:
                return start + width
            start += width
            length = int.from_bytes(data[start - width : start], "big")
            if length < (126 if width == 2 else 1 << 16):
                raise _Broken(PROTOCOL_ERROR, "a length longer than it need be")
        if self.masked:
            start += 4
        kept = min(length, self.limit + 1 - len(self._fragments)) if length > self.limit else length
        end = start + kept
        if size < end:
            if first & _RESERVED or (first & 0x0F) >= _CLOSE:
                self._check_control(first, length)
            return end
        payload = data[start:end]
        if self.masked and payload:
            payload = apply_mask(payload, data[start - 4 : start])
        self._skip = length - kept
        if first == _FIN | _BINARY and not self._opcode:
            events.append(payload)
        elif (event := self._event(first, payload)) is not None:
            events.append(event)
        return end

    def _event(self, first: int, payload: bytes) -> Event | None:
        opcode = first & 0x0F
        if first & _RESERVED or opcode >= _CLOSE:
            self._check_control(first, len(payload))
            return self._control(opcode, payload)
        if opcode not in ((_MORE,) if self._opcode else (_TEXT, _BINARY)):
            raise _Broken(PROTOCOL_ERROR, "fragments out of order")
        return self._message(first, opcode, payload)

    def _message(self, first: int, opcode: int, payload: bytes) -> str | bytes | None:
        if first < _FIN:
            room = max(self.limit + 1 - len(self._fragments), 0)
            self._opcode = self._opcode or opcode
            self._fragments += payload[:room]
            return None
        if self._opcode:
            opcode, payload = self._opcode, bytes(self._fragments + payload)[: self.limit + 1]
            self._opcode, self._fragments = _MORE, bytearray()
        if opcode == _BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            if len(payload) > self.limit:  # cut off here
                return payload.decode(errors="replace")
            raise _Broken(INVALID_DATA, "text that is no UTF-8") from None

    def _check_control(self, first: int, length: int) -> None:
        if first & _RESERVED or first & 0x0F not in (_CLOSE, _PING, _PONG):
            raise _Broken(PROTOCOL_ERROR, "a reserved bit or opcode")
        if first < _FIN or length > _LONGEST_CONTROL:
            raise _Broken(PROTOCOL_ERROR, "a control frame that is long or in fragments")

    def _control(self, opcode: int, payload: bytes) -> Event | None:
        if opcode == _PONG:
            return None  # its bytes are a sign of life, and nothing else is in it
        if opcode == _PING:
            return Ping(payload)
        if not payload:
            code, reason = NO_STATUS, ""
        else:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not _may_be_sent(code):
                raise _Broken(PROTOCOL_ERROR, "a close code that must not be sent")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise _Broken(INVALID_DATA, "a reason that is no UTF-8") from None
        self._over = True
        return Close(code, reason)


def _may_be_sent(code: int) -> bool:
    """Whether a close frame may carry the code: RFC 6455, section 7.4, and IANA's registry."""
    return 1_000 <= code <= 1_003 or 1_007 <= code <= 1_014 or 3_000 <= code < 5_000
