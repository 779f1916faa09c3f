"""``ssasr transcribe``: stream a recording to a server and show the words as they come."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import trio
from attrs import evolve, frozen
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ssasr.client.connection import ClientError, ClientSession, open_session
from ssasr.protocol.codec import encode
from ssasr.protocol.messages import ServerMessage, Terminate, Termination, Turn
from ssasr.runtime.process import plain_nursery, run

CHUNK_SECONDS = 0.1


@frozen
class Request:
    file: Path
    endpoint: str
    key: str
    pace: str
    parameters: dict[str, object]

    def of(self, file: Path) -> "Request":
        """The same of another recording."""
        return evolve(self, file=file)


class Screen(Protocol):
    """Where messages go."""

    def show(self, message: ServerMessage) -> None: ...


class JsonLines:
    """One message a line on stdout, as it came."""

    def show(self, message: ServerMessage) -> None:
        sys.stdout.write(encode(message) + "\n")
        sys.stdout.flush()


class PlainLines:
    """For pipes: a line whenever the words change. ``~`` marks the words that may still change."""

    def show(self, message: ServerMessage) -> None:
        if isinstance(message, Turn):
            sys.stdout.write(plain_line(message) + "\n")
            sys.stdout.flush()


class LiveWords:
    """For terminals: the open turn is redrawn in place, tentative words dim."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def show(self, message: ServerMessage) -> None:
        if not isinstance(message, Turn):
            return
        if message.end_of_turn:
            self._live.update(Text(""))
            self._console.print(Text(f"■ {message.transcript}", style="bold green"))
        else:
            self._live.update(tentative(message), refresh=True)


def tentative(turn: Turn) -> Text:
    text = Text("… ")
    for word in turn.words:
        text.append(word.text + " ", style="" if word.word_is_final else "dim italic")
    return text


def plain_line(turn: Turn) -> str:
    if turn.end_of_turn:
        return f"[turn {turn.turn_order}] {turn.transcript}"
    words = [word.text if word.word_is_final else f"~{word.text}" for word in turn.words]
    return "... " + " ".join(words)


def open_sound(file: Path) -> soundfile.SoundFile:
    """Raises ClientError if it is not audio we read."""
    if not file.exists():
        raise ClientError(f"{file}: no such file")
    try:
        return soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ClientError(f"{file}: not readable as audio ({error})") from None


def read_audio(file: Path) -> tuple[int, Iterator[bytes]]:
    """Sample rate and chunks of 16-bit mono PCM. Raises ClientError if it is not audio we read."""
    sound = open_sound(file)
    return sound.samplerate, _chunks(sound)


def _chunks(sound: soundfile.SoundFile) -> Iterator[bytes]:
    with sound:
        for block in sound.blocks(
            int(sound.samplerate * CHUNK_SECONDS), dtype="float32", always_2d=True
        ):
            yield to_pcm(block.mean(axis=1))


def to_pcm(samples: NDArray[np.float32]) -> bytes:
    """float32 (n,) in [-1, 1] to little-endian 16-bit."""
    return np.clip(np.round(samples * 32_768), -32_768, 32_767).astype("<i2").tobytes()


def transcribe(request: Request, *, as_json: bool) -> None:
    """Raises ClientError."""
    if as_json:
        run(lambda: stream_file(request, JsonLines().show))
        return
    console = Console()
    if not console.is_terminal:
        run(lambda: stream_file(request, PlainLines().show))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        run(lambda: stream_file(request, LiveWords(console, live).show))


async def stream_file(request: Request, show: Callable[[ServerMessage], None]) -> None:
    rate, chunks = read_audio(request.file)
    parameters = {"sample_rate": rate, "encoding": "pcm_s16le", **request.parameters}
    async with open_session(request.endpoint, parameters, request.key) as session:
        async with plain_nursery() as nursery:
            nursery.start_soon(send_chunks, session, chunks, request.pace == "realtime")
            while (message := await session.receive()) is not None:
                show(message)
                if isinstance(message, Termination):
                    break
            nursery.cancel_scope.cancel()


async def send_chunks(session: ClientSession, chunks: Iterator[bytes], real_time: bool) -> None:
    """Each chunk at the time its last sample would have been spoken, or at once."""
    due = trio.current_time()
    for chunk in chunks:
        due += CHUNK_SECONDS
        if real_time:
            await trio.sleep_until(due)
        await session.send_audio(chunk)
    await session.send_json(encode(Terminate()))
