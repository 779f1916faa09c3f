"""Compressed audio: raw Opus packets, Opus in Ogg or WebM, AAC in ADTS. Imports PyAV, which is an
extra (``pip install ssasr[codecs]``), so this module is imported only when a client asks for one.

Data that cannot be decoded ends the session with 3006: the transport loses nothing, so damage means
that the client sends something else than it said.
"""

from collections.abc import Callable, Iterable

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from ssasr.audio.adts import AdtsError, AdtsReader
from ssasr.audio.containers import LOOKED_AT, container_of, wrong_container
from ssasr.audio.ogg import OggError, OggReader
from ssasr.audio.resampling import Resampler, Samples, pcm_bytes, rounded
from ssasr.audio.webm import WebmError, WebmReader
from ssasr.protocol.close_codes import CloseCode, EndCause
from ssasr.protocol.faults import ClientFault, invalid_value
from ssasr.protocol.recognition import SAMPLE_RATE

OPUS_RATE = 48_000
"""Opus counts its time at 48 kHz, whatever the encoder was given (RFC 7845)."""
MESSAGE_SECONDS = 30
"""Audio that one message may decode to. A megabyte of the smallest Opus packets would be hours."""


def make_compressed_decoder(encoding: str) -> "PacketDecoder":
    """The decoder for ``opus``, ``ogg_opus``, ``webm`` or ``aac``."""
    if encoding == "aac":
        return PacketDecoder("aac", _codec("aac"), AdtsReader().read, prime=0)
    opus = _codec("libopus")
    opus.sample_rate = OPUS_RATE
    opus.layout = "mono"  # the decoder mixes stereo down
    if encoding == "opus":
        # No header says how much of the start is the encoder's delay; it stays in, 6.5 ms.
        return PacketDecoder(encoding, opus, _single, prime=0)
    container = WebmReader() if encoding == "webm" else _OggOpus()
    return PacketDecoder(encoding, opus, container.packets, prime=None, container=container)


def _codec(name: str) -> AudioCodecContext:
    codec = av.CodecContext.create(name, "r")
    assert isinstance(codec, AudioCodecContext), f"{name} is an audio codec"
    return codec


def _single(data: bytes) -> list[bytes]:
    return [data] if data else []


class _OggOpus:
    """Takes the two header packets of each logical stream away (RFC 7845)."""

    def __init__(self) -> None:
        self._reader = OggReader()
        self._headers = 0
        self.pre_skip = 0

    def packets(self, data: bytes) -> list[bytes]:
        audio: list[bytes] = []
        for packet in self._reader.read(data):
            if packet.first:
                if not packet.data.startswith(b"OpusHead") or len(packet.data) < 19:
                    raise OggError("the Ogg stream is not Opus")
                self.pre_skip = int.from_bytes(packet.data[10:12], "little")
                self._headers = 1
            elif self._headers == 1:  # OpusTags
                self._headers = 2
            elif self._headers == 2:
                audio.append(packet.data)
            else:
                raise OggError("the Ogg stream does not begin with its header")
        return audio


class PacketDecoder:
    """``split``: message to packets. ``prime``: samples at 48 kHz to drop at the start; None when
    the container tells."""

    def __init__(
        self,
        encoding: str,
        codec: AudioCodecContext,
        split: Callable[[bytes], list[bytes]],
        *,
        prime: int | None,
        container: _OggOpus | WebmReader | None = None,
    ) -> None:
        self._encoding = encoding
        self._codec = codec
        self._head: bytes | None = b""
        """The first bytes, until it is known whether they are of what was asked for."""
        self._split = split
        self._prime = prime
        self._container = container
        self._rate: int | None = None
        self._resampler = Resampler(SAMPLE_RATE)

    def decode(self, data: bytes) -> bytes:
        """As ``decoding.Decoder``. ClientFault 3006 for bad data, 3007 for far too much at once."""
        if self._head is not None:
            data = self._checked_start(self._head + data)
        try:
            return pcm_bytes(self._joined(self._split(data)))
        except (av.FFmpegError, OggError, AdtsError, WebmError) as error:
            raise invalid_value("audio", "not decodable in the encoding asked for") from error

    def _checked_start(self, data: bytes) -> bytes:
        """Nothing while too little is there to tell. (A packet of Opus stands for itself.)"""
        if len(data) < LOOKED_AT and self._encoding != "opus":
            self._head = data
            return b""
        self._head = None
        name = container_of(data)
        if name is not None and f"encoding={self._encoding} " not in name:
            raise wrong_container(name, self._encoding)
        return data

    def flush(self) -> bytes:
        """What the codec and the resampler still hold; a packet cut short is dropped."""
        try:
            rest = [self._resampled(frame) for frame in self._codec.decode(None)]
        except av.FFmpegError:
            rest = []
        return pcm_bytes(np.concatenate([*rest, self._resampler.resample(_nothing(), last=True)]))

    def _joined(self, packets: Iterable[bytes]) -> Samples:
        out = [_nothing()]
        length = 0
        for packet in packets:
            for frame in self._codec.decode(av.Packet(packet)):
                out.append(self._resampled(frame))
                length += len(out[-1])
            if length > MESSAGE_SECONDS * SAMPLE_RATE:
                raise ClientFault(
                    CloseCode.INPUT_RATE,
                    "Audio Transmission Rate Exceeded: more than "
                    f"{MESSAGE_SECONDS} seconds in one message",
                    cause=EndCause.RATE_EXCEEDED,
                )
        return np.concatenate(out)

    def _resampled(self, frame: av.AudioFrame) -> Samples:
        samples = _mono(frame)
        if self._prime is None:
            self._prime = self._container.pre_skip if self._container else 0
        dropped = min(self._prime, len(samples))
        self._prime -= dropped
        before = _nothing()
        if frame.sample_rate != self._rate:  # an ADTS stream may change it
            if self._rate is not None:
                before = self._resampler.resample(_nothing(), last=True)
            self._rate = frame.sample_rate
            self._resampler = Resampler(self._rate)
        after = self._resampler.resample(samples[dropped:])
        return np.concatenate([before, after]) if len(before) else after


def _nothing() -> Samples:
    return np.zeros(0, dtype=np.int16)


def _mono(frame: av.AudioFrame) -> Samples:
    """int16 (n,): the mean of the channels."""
    values: NDArray[np.float32] = frame.to_ndarray().astype(np.float32)  # (planes, samples)
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    mixed = values.mean(axis=0)
    if frame.format.name.startswith("flt"):
        mixed = mixed * 32_768
    return rounded(mixed)
