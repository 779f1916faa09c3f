"""What the first bytes of an audio stream say that they are.

A client that sends a file or a browser's recording under the wrong name would hear nothing from us
but words made out of noise. So the beginning of every stream is looked at: a container that is not
what was asked for is named in the refusal, and a WAV header before PCM, which many clients leave
in place, is read past.
"""

import struct
from collections.abc import Callable

from ssasr.audio.pcm import Decoder
from ssasr.protocol.faults import ClientFault, invalid_value

LOOKED_AT = 12
"""Bytes that tell every container below."""
MOST_PACKETS = 12_000
"""Of one message, whatever they hold: 30 s in the shortest packets of Opus. A megabyte of empty
ones would keep the event loop for seconds."""
LONGEST_HEADER = 64 * 1024
"""Bytes of a WAV header, whatever else was put into it."""
WAV_FORMATS = {"pcm_s16le": (1, 16), "pcm_mulaw": (7, 8), "pcm_alaw": (6, 8)}
"""Format tag and bits of a sample."""
_EXTENSIBLE = 0xFFFE


def container_of(head: bytes) -> str | None:
    """The name of the container that begins so, with the encoding to ask for where there is one;
    None for whatever else. ``head``: ``LOOKED_AT`` bytes, or all there are."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "WebM or Matroska (encoding=webm takes Opus in WebM)"
    if head[4:8] == b"ftyp":
        return "MP4 (send WebM, Ogg or PCM instead)"
    if head.startswith(b"OggS"):
        return "Ogg (encoding=ogg_opus takes Opus in Ogg)"
    if head.startswith(b"fLaC"):
        return "FLAC (send PCM instead)"
    if head.startswith(b"ID3") and head[3:4] in (b"\x02", b"\x03", b"\x04"):
        return "MP3 (send PCM instead)"
    if _is_wav(head):
        return "WAV (encoding=pcm_s16le takes 16-bit WAV)"
    return None


def _is_wav(head: bytes) -> bool:
    return head.startswith((b"RIFF", b"RF64")) and head[8:12] == b"WAVE"


def wrong_container(name: str, encoding: str) -> ClientFault:
    return invalid_value("encoding", f"the audio is {name}, not {encoding}")


class StartChecked:
    """A decoder of PCM whose stream may begin with a WAV header, and with no other. ``encoding``,
    ``rate``: what was asked for, which a WAV header must not contradict."""

    def __init__(self, decoder: Decoder, *, encoding: str, rate: int) -> None:
        self._decoder = decoder
        self._encoding = encoding
        self._rate = rate
        self._head = b""
        self.decode: Callable[[bytes], bytes] = self._decode_start
        """As ``Decoder``'s. ClientFault 3006 for a container."""

    def _decode_start(self, data: bytes) -> bytes:
        self._head += data
        if len(self._head) < LOOKED_AT:
            return b""
        start = 0
        if _is_wav(self._head):
            found = self._after_header()
            if found is None:
                return b""
            start = found
        elif (name := container_of(self._head)) is not None:
            raise wrong_container(name, self._encoding)
        self.decode = self._decoder.decode
        head, self._head = self._head[start:], b""
        return self.decode(head)

    def flush(self) -> bytes:
        if _is_wav(self._head):
            return b""
        return self._decoder.decode(self._head) + self._decoder.flush()

    def _after_header(self) -> int | None:
        """Where the samples begin; None while the header is incomplete."""
        at = LOOKED_AT
        while len(self._head) >= at + 8:
            name, size = struct.unpack_from("<4sI", self._head, at)
            if name == b"data":
                return at + 8
            if name == b"fmt " and len(self._head) >= at + 8 + size:
                self._check_format(self._head[at + 8 : at + 8 + size])
            at += 8 + size + size % 2
            if at > LONGEST_HEADER:
                raise invalid_value("audio", "a WAV header that has no end")
        return None

    def _check_format(self, fields: bytes) -> None:
        if len(fields) < 16:
            raise invalid_value("audio", "a damaged WAV header")
        tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", fields)
        if tag == _EXTENSIBLE and len(fields) >= 26:
            (tag,) = struct.unpack_from("<H", fields, 24)
        wanted = WAV_FORMATS[self._encoding]
        if (tag, bits) != wanted or channels != 1 or rate != self._rate:
            raise invalid_value(
                "audio",
                f"the WAV header says {rate} Hz, {channels} channel(s), {bits} bits in format "
                f"{tag}; asked for were {self._rate} Hz, 1, {wanted[1]} in format {wanted[0]}",
            )
