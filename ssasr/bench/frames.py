"""The handshake and the frames that the load generator sends (RFC 6455). Pure.

A general WebSocket library would cost more than the server under test. Frames are masked as those
of real clients are, with one key for all: a frame is made once for all streams. The server's are
read by ``net.frames``.
"""

import base64
import hashlib
from collections.abc import Mapping

from ssasr.errors import SsasrError
from ssasr.net import frames

TEXT, BINARY, CLOSE, PONG = 1, 2, 8, 10
LONGEST_HEAD = 16 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
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
