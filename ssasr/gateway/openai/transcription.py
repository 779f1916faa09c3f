"""A recording through the engines: windows out to a few streams, words back in their order.

nursery of one file
├─ a source: decodes the recording in a thread, a piece at a time, and cuts it into windows
└─ one or two streams, each with a window at a time: all of its audio, then ``Finalize``

A window is a segment of its own, so an engine takes it whole (``StreamOptions.offline``), and one
that is lost is made good by another like any segment. Everything is bounded: one window waits for
each stream, and the file is read no faster.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from typing import BinaryIO, Protocol

import trio
from attrs import define, evolve, field, frozen

from ssasr.errors import EngineBusy, EngineUnavailable, SsasrError
from ssasr.gateway.openai.errors import ApiError
from ssasr.gateway.openai.windows import Window, Windows
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Audio,
    Final,
    Finalize,
    FromEngine,
    Open,
    StreamOptions,
    Update,
    Word,
)
from ssasr.protocol.voices import Voices
from ssasr.routing.engine_stream import Engines, EngineStream
from ssasr.runtime.process import plain_nursery

STREAMS = 2
"""Of one file, if the engine has room: while one's words are found, the other listens."""
MESSAGE = SAMPLE_RATE
"""Samples of one message."""
IN_FLIGHT = 8 * SAMPLE_RATE
"""Samples that an engine has not acknowledged."""
LONGEST_AUDIO = 6 * 3_600
"""Seconds. An hour of silence is a few kilobytes in some formats, and an hour's work all the
same."""


@frozen
class Piece:
    """What was said in one window; positions are samples of the recording."""

    start: int
    end: int
    words: tuple[Word, ...]
    language: str | None
    voices: tuple[Voices, ...] = ()


Emit = Callable[[Piece], Awaitable[None]]


class Recorded(Protocol):
    """As ``audio.files.Recording``."""

    @property
    def seconds(self) -> float | None: ...
    def pieces(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


@frozen
class Task:
    """What is to be done with a recording."""

    session_id: str
    model_version: str
    options: StreamOptions

    @property
    def streams(self) -> int:
        """Who speaks is found out over the whole recording, in one stream."""
        return 1 if self.options.speakers else STREAMS


def open_recording(file: BinaryIO) -> Recorded:
    """In a thread: it reads. Raises ApiError."""
    try:
        from ssasr.audio.files import NotAudio, Recording
    except ImportError:
        text = "This server cannot read files: it has no PyAV (ssasr[codecs])"
        raise ApiError(501, "not_supported", text) from None
    try:
        recording = Recording(file)
    except NotAudio as error:
        raise unreadable(error) from None
    if recording.seconds is not None and recording.seconds > LONGEST_AUDIO:
        recording.close()
        raise too_long()
    return recording


def unreadable(error: Exception) -> ApiError:
    return ApiError(400, "invalid_audio", f"Audio cannot be decoded: {error}", "file")


def too_long() -> ApiError:
    hours = LONGEST_AUDIO // 3_600
    return ApiError(400, "audio_too_long", f"Files of up to {hours} hours are transcribed", "file")


@define(eq=False)
class FileTranscription:
    """``run`` it once; ``samples`` says how much was read."""

    engines: Engines
    task: Task
    recording: Recorded
    emit: Emit
    samples: int = 0
    _several: trio.Event = field(factory=trio.Event)
    """There is more than one window, or no more of them."""
    _done: dict[int, Piece] = field(factory=dict)
    _next: int = 0
    _in_order: trio.Lock = field(factory=trio.Lock)

    async def run(self) -> None:
        """Raises ApiError, EngineError."""
        windows, cut = trio.open_memory_channel[Window](0)
        async with plain_nursery() as nursery:
            nursery.start_soon(self._read, windows)
            nursery.start_soon(self._serve, cut.clone())
            for _ in range(self.task.streams - 1):
                nursery.start_soon(self._serve_more, cut.clone())
            cut.close()

    async def _read(self, windows: trio.MemorySendChannel[Window]) -> None:
        cutting = Windows.new()
        async with windows, aclosing(in_thread(self.recording.pieces())) as pieces:
            try:
                async for pcm in pieces:
                    for window in cutting.add(pcm):
                        await self._pass_on(window, windows)
                    if cutting.samples > LONGEST_AUDIO * SAMPLE_RATE:
                        raise too_long()
                for window in cutting.remaining():
                    await self._pass_on(window, windows)
            finally:
                self.samples = cutting.samples
                self._several.set()

    async def _pass_on(self, window: Window, windows: trio.MemorySendChannel[Window]) -> None:
        if window.number:
            self._several.set()
        await windows.send(window)

    async def _serve_more(self, windows: trio.MemoryReceiveChannel[Window]) -> None:
        """A stream more, where it is of use and there is a place for it."""
        async with windows:
            await self._several.wait()
            with suppress(EngineBusy, EngineUnavailable):
                await self._serve(windows.clone())

    async def _serve(self, windows: trio.MemoryReceiveChannel[Window]) -> None:
        task = self.task
        async with windows:
            opening = Open(task.session_id, task.options)
            async with self.engines.open_stream(task.model_version, opening) as stream:
                if task.options.translate and not stream.opened.translates:
                    text = f"The model {stream.opened.model} does not translate"
                    raise ApiError(400, "not_supported", text, "model")
                async for window in windows:
                    await self._finish(window.number, await recognize(stream, window))

    async def _finish(self, number: int, piece: Piece) -> None:
        self._done[number] = piece
        async with self._in_order:
            while self._next in self._done:
                await self.emit(self._done.pop(self._next))
                self._next += 1


async def recognize(stream: EngineStream, window: Window) -> Piece:
    """One window as the stream's next segment. Raises EngineLost."""
    segment, begin = stream.position.segment, stream.position.sent
    voices: list[Voices] = []
    for at in range(0, window.samples, MESSAGE):
        while stream.position.unacknowledged >= IN_FLIGHT:
            voices += _voices(await stream.receive())
        pcm = window.pcm[2 * at : 2 * (at + MESSAGE)]
        await stream.send(Audio(stream.position.sent, pcm))
    await stream.send(Finalize(segment, begin + window.samples))
    while not isinstance(answer := await stream.receive(), Final):
        voices += _voices(answer)
    offset = window.start - begin
    words = tuple(
        evolve(word, start=word.start + offset, end=word.end + offset) for word in answer.words
    )
    end = window.start + window.samples
    language = answer.language if words else None
    return Piece(window.start, end, words, language, (*voices, *answer.voices))


def _voices(answer: FromEngine) -> tuple[Voices, ...]:
    """An engine that drains goes on answering."""
    return answer.voices if isinstance(answer, Update) else ()


async def in_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Each made in a thread. Raises ApiError."""
    while True:
        try:
            piece = await trio.to_thread.run_sync(next, pieces, None)
        except SsasrError as error:  # ``NotAudio``, whose module may not be there
            raise unreadable(error) from None
        if piece is None:
            return
        yield piece
