"""A recording in any container, as PCM, a piece at a time. Imports PyAV, an extra
(``pip install ssasr[codecs]``), so this module is imported only when somebody sends a file.

What is read is a stranger's, and FFmpeg has formats that are lists of other files and addresses. So
only containers that hold their sound themselves are opened, and no protocol but the file's own.
"""

from collections.abc import Iterator
from typing import BinaryIO

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from ssasr.errors import SsasrError
from ssasr.protocol.recognition import SAMPLE_RATE

CONTAINERS = (
    "3gp,aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,gsm,matroska,webm,mov,mp3,mpeg,mpegts,"
    "mulaw,oga,ogg,opus,rm,swf,tak,tta,voc,w64,wav,wv"
)
"""FFmpeg's demuxers of self-contained files."""
PIECE = 10 * SAMPLE_RATE
"""Samples of a piece, about."""
MOST_DAMAGED = 100
"""Packets that cannot be decoded and are left out; a file with more is broken."""


class NotAudio(SsasrError):
    """The file has no sound that can be decoded."""


class Recording:
    """``pieces`` gives 16-bit mono PCM at 16 kHz. Used by one thread at a time; ``close`` it."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises NotAudio."""
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "pipe"}
        try:
            container = av.open(file, "r", container_options=options, metadata_errors="ignore")
        except (av.FFmpegError, ValueError) as error:
            raise NotAudio("the file is in no format that is known here, or damaged") from error
        assert isinstance(container, InputContainer), "it was opened for reading"
        self._container = container
        if not container.streams.audio:
            container.close()
            raise NotAudio("the file has no audio")

    def close(self) -> None:
        self._container.close()

    @property
    def seconds(self) -> float | None:
        """As the file says, where it does."""
        length = self._container.duration
        return None if length is None else length / av.time_base

    def pieces(self) -> Iterator[bytes]:
        """Raises NotAudio."""
        resampler = AudioResampler("s16", "mono", SAMPLE_RATE)
        waiting, samples = [], 0
        for frame in self._frames():
            for part in resampler.resample(frame):
                waiting.append(part.to_ndarray().astype("<i2", copy=False).tobytes())
                samples += part.samples
            if samples >= PIECE:
                yield b"".join(waiting)
                waiting, samples = [], 0
        yield b"".join(waiting)

    def _frames(self) -> Iterator["av.AudioFrame | None"]:
        """Those of the first audio stream, and None after the last."""
        stream, damaged = self._container.streams.audio[0], 0
        shape = None
        try:
            for packet in self._container.demux(stream):
                try:
                    frames = _decoded(stream, packet)
                except av.FFmpegError as error:
                    damaged += 1
                    if damaged > MOST_DAMAGED:
                        raise NotAudio("the file is damaged") from error
                    continue
                for frame in frames:
                    now = (frame.format.name, frame.layout.name, frame.rate)
                    if shape is not None and now != shape:
                        raise NotAudio("its sound changes its form in the middle")
                    shape = now
                    yield frame
        except av.FFmpegError:  # a file that was cut off
            if shape is None:
                raise NotAudio("the file is damaged") from None
        if shape is None:
            raise NotAudio("the file has no audio that can be decoded")
        yield None


def _decoded(stream: AudioStream, packet: "av.Packet[AudioStream]") -> list["av.AudioFrame"]:
    frames = stream.codec_context.decode(packet)
    return [frame for frame in frames if frame.samples]
