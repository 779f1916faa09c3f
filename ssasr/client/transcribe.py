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
from ssasr.client.subtitles import by_speaker
from ssasr.protocol.codec import encode
from ssasr.protocol.messages import (
    RevisedTurn,
    ServerMessage,
    SpeakerRevision,
    Terminate,
    Termination,
    Turn,
)
from ssasr.runtime.process import plain_nursery, run

CHUNK_SECONDS = 0.1
COLOURS = ("green", "cyan", "magenta", "yellow", "blue", "red")
"""Of speakers A, B …"""


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

    def with_speakers(self) -> "Request":
        """The same with labels for those who speak."""
        return evolve(self, parameters={**self.parameters, "speaker_labels": "true"})


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
        if isinstance(message, Turn | SpeakerRevision):
            sys.stdout.write("".join(line + "\n" for line in plain_lines(message)))
            sys.stdout.flush()


class LiveWords:
    """For terminals: the open turn is redrawn in place, tentative words dim."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def show(self, message: ServerMessage) -> None:
        if isinstance(message, SpeakerRevision):
            for turn in message.revisions:
                label = f"turn {turn.turn_order} is {turn.speaker_label}'s: "
                self._console.print(Text("↻ " + label).append_text(spoken(turn)))
        if not isinstance(message, Turn):
            return
        if message.end_of_turn:
            self._live.update(Text(""))
            self._console.print(Text("■ ").append_text(spoken(message)))
        else:
            self._live.update(tentative(message), refresh=True)


def tentative(turn: Turn) -> Text:
    text = Text("… ")
    for word in turn.words:
        text.append(word.text + " ", style="" if word.word_is_final else "dim italic")
    return text


def spoken(turn: Turn | RevisedTurn) -> Text:
    """What was said, in a colour and with the letter of whoever said it."""
    text = Text()
    for speaker, words in by_speaker(turn):
        letter = "" if speaker is None else f"{speaker} "
        text.append(f"{letter}{words} ", style=f"bold {colour(speaker)}")
    return text


def colour(speaker: str | None) -> str:
    """The first is the one of a session without speakers."""
    known = speaker is not None and speaker.isalpha() and len(speaker) == 1
    if speaker is None or known:
        return COLOURS[(ord(speaker or "A") - ord("A")) % len(COLOURS)]
    return "white"


def plain_lines(message: Turn | SpeakerRevision) -> list[str]:
    if isinstance(message, SpeakerRevision):
        return [line for turn in message.revisions for line in _plain("revised", turn)]
    if message.end_of_turn:
        return _plain("turn", message)
    words = [word.text if word.word_is_final else f"~{word.text}" for word in message.words]
    return ["... " + " ".join(words)]


def _plain(what: str, turn: Turn | RevisedTurn) -> list[str]:
    said = [words if speaker is None else f"{speaker}: {words}" for speaker, words in
            by_speaker(turn)]  # fmt: skip
    return [f"[{what} {turn.turn_order}] {each}" for each in said]


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
