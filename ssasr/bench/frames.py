"""The least of RFC 6455 that the load generator needs. Pure: bytes in, frames out.

A general WebSocket library would cost more than the server under test, which has its own for whole
frames too (``net.frames``). Frames are masked as those of real clients are, with one key for all: a
frame is made once for all streams.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from ssasr.errors import SsasrError
from ssasr.net import frames

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONGEST_HEAD = 16 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_FIN, _MASKED = 0x80, 0x80
_KEY = b"\x37\xfa\x21\x3d"  # RFC 6455, section 5.7


class WireError(SsasrError):
    """The server does not speak WebSocket as it should."""


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """A whole masked frame."""
    return frames.encode_frame(opcode, payload, _KEY)


def handshake(host: str, resource: str, key: bytes, headers: Mapping[str, str]) -> bytes:
    """The upgrade request; ``key`` is 16 bytes of the client's choice."""
    lines = [
        f"GET {resource} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(key).decode()}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def check_answer(head: bytes, key: bytes) -> None:
    """Raises WireError unless ``head`` is the answer to ``handshake`` with ``key``."""
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ")
    if len(status) < 2 or status[1] != "101":
        raise WireError(f"the server answered {' '.join(status[1:]) or 'no HTTP'}")
    fields = dict(line.lower().split(":", 1) for line in lines[1:] if ":" in line)
    expected = base64.b64encode(hashlib.sha1(base64.b64encode(key) + _GUID).digest())
    if fields.get("sec-websocket-accept", "").strip() != expected.decode().lower():
        raise WireError("the server's Sec-WebSocket-Accept does not fit the key")


@frozen
class Frame:
    """A whole message, or a control frame."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """1005 when the peer gave none."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005

    @property
    def close_reason(self) -> str:
        return self.payload[2:].decode("utf-8", "replace")


@define
class FrameReader:
    """The frames in what a server sends, however it is cut."""

    limit: int = 1 << 24
    """Bytes of one message."""
    _buffer: bytearray = field(factory=bytearray)
    _message: bytes = b""
    _opcode: int = 0

    def feed(self, data: bytes | bytearray) -> Iterator[Frame]:
        """Raises WireError for a masked frame and for a message beyond the limit."""
        self._buffer += data
        while (cut := self._cut()) is not None:
            first, payload = cut
            opcode = first & 0x0F
            if opcode >= CLOSE:
                yield Frame(opcode, payload)
                continue
            self._opcode = opcode or self._opcode
            self._message += payload
            if first & _FIN:
                whole, self._message = self._message, b""
                yield Frame(self._opcode, whole)

    def _cut(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of the next frame, if it is all there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size & _MASKED:
            raise WireError("the server masks its frames")
        if size >= 126:
            width = 2 if size == 126 else 8
            start += width
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if size + len(self._message) > self.limit:
            raise WireError(f"a message of more than {self.limit} bytes")
        if len(buffer) < start + size:
            return None
        first, payload = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return first, payload
