"""``ssasr transcribe``: stream a recording to a server and show the words as they come.

A session lasts only so long (three hours by default). A recording that is longer goes on in a
further session, cut where it is quiet, and its times and turns go on too: whoever reads the
messages sees one session. Only speakers are found anew: the first one of the second
session is ``2A``, who may be ``A`` or anybody else. What ends a session before all of it was
received is an error.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import trio
from attrs import define, evolve, field, frozen
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ssasr.client.connection import ClientError, ClientSession, begin_session
from ssasr.client.sound import CHUNK_SECONDS, Mixer, Samples, Sound, open_sound, to_pcm
from ssasr.client.subtitles import by_speaker
from ssasr.protocol.codec import encode
from ssasr.protocol.joining import join, space_between
from ssasr.protocol.messages import (
    Begin,
    RevisedTurn,
    ServerMessage,
    SpeakerRevision,
    SpeechStarted,
    Terminate,
    Termination,
    Turn,
)
from ssasr.runtime.process import plain_nursery, run

COLOURS = ("green", "cyan", "magenta", "yellow", "blue", "red")
"""Of speakers A, B …"""
PING_SECONDS = 10.0
SILENCE_SECONDS = 90.0
"""Without a message, a pong or any of our audio taken, after which a server is taken for dead. A
slow one that has a minute of audio before our ping answers in time."""
EARLY, LATE = 0.9, 0.97
"""Of a session's time: from when on it is cut at the next quiet place, and from when on
anywhere."""
QUIET = 0.1
"""Loudness, of that of the recording so far, below which a place is quiet."""
CLOSE_SECONDS = 5.0
"""For the server to close after its last message."""


@frozen
class Request:
    """``file``: a path, or ``-``. ``channel``: from 1, or None: all of them mixed."""

    file: str
    endpoint: str
    key: str
    pace: str
    parameters: dict[str, object]
    channel: int | None = None

    def of(self, file: str) -> "Request":
        """The same of another recording."""
        return evolve(self, file=file)

    def with_speakers(self) -> "Request":
        """The same with labels for those who speak."""
        return evolve(self, parameters={**self.parameters, "speaker_labels": "true"})


T = TypeVar("T", Turn, RevisedTurn)


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
    text, before = Text("… "), ""
    for word in turn.words:
        text.append(space_between(before, word.text))
        text.append(word.text, style="" if word.word_is_final else "dim italic")
        before = word.text
    return text


def spoken(turn: Turn | RevisedTurn) -> Text:
    """The words, in the colour and with the letter of their speaker."""
    text = Text()
    for speaker, words in by_speaker(turn):
        letter = "" if speaker is None else f"{speaker} "
        text.append(f"{letter}{words} ", style=f"bold {colour(speaker)}")
    return text


def colour(speaker: str | None) -> str:
    """The first is the one of a session without speakers."""
    session, letter = ("", "A") if speaker is None else (speaker[:-1], speaker[-1:])
    if not letter.isalpha() or not (session.isdecimal() or not session):
        return "white"
    return COLOURS[(ord(letter) - ord("A") + int(session or 1) - 1) % len(COLOURS)]


def plain_lines(message: Turn | SpeakerRevision) -> list[str]:
    if isinstance(message, SpeakerRevision):
        return [line for turn in message.revisions for line in _plain("revised", turn)]
    if message.end_of_turn:
        return _plain("turn", message)
    words = [word.text if word.word_is_final else f"~{word.text}" for word in message.words]
    return ["... " + join(words)]


def _plain(what: str, turn: Turn | RevisedTurn) -> list[str]:
    said = [words if speaker is None else f"{speaker}: {words}" for speaker, words in
            by_speaker(turn)]  # fmt: skip
    return [f"[{what} {turn.turn_order}] {each}" for each in said]


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


@define
class Progress:
    """How far one session has come."""

    alive: float = field(factory=trio.current_time)
    """When the server last showed that it is there."""
    began: float = 0.0
    lasts: float = float("inf")
    """Seconds that the session may last."""
    terminated: bool = False
    """We have asked for the session's end."""
    all_sent: bool = False
    """Nothing of the recording is left."""
    sent: int = 0
    """Samples."""

    def begin(self, begin: Begin) -> None:
        self.began = trio.current_time()
        self.lasts = max(begin.expires_at - time.time(), 0.0)

    def share(self) -> float:
        """Of the session's time that has passed."""
        return (trio.current_time() - self.began) / self.lasts if self.began else 0.0


@define
class Joined:
    """The messages of several sessions as those of one."""

    show: Callable[[ServerMessage], None]
    milliseconds: int = 0
    turns: int = 0
    seconds: int = 0
    """Of all sessions so far, by the clock."""
    _session: int = 1
    _next_turn: int = 0
    _began: bool = False

    def pass_on(self, message: ServerMessage) -> None:
        match message:
            case Begin() if self._began:
                return
            case Begin():
                self._began = True
            case SpeechStarted():
                message = evolve(message, timestamp=message.timestamp + self.milliseconds)
            case Turn():
                self._next_turn = message.turn_order + 1
                message = self._shifted(message)
            case SpeakerRevision(turns):
                message = SpeakerRevision(tuple(self._shifted(turn) for turn in turns))
        self.show(message)

    def _shifted(self, turn: T) -> T:
        if self._session == 1:
            return turn
        words = tuple(
            evolve(
                word,
                start=word.start + self.milliseconds,
                end=word.end + self.milliseconds,
                speaker=word.speaker and self._label(word.speaker),
            )
            for word in turn.words
        )
        return evolve(
            turn,
            words=words,
            turn_order=turn.turn_order + self.turns,
            speaker_label=turn.speaker_label and self._label(turn.speaker_label),
        )

    def _label(self, speaker: str) -> str:
        """Another than the same letter's of the session before; ``PENDING`` is nobody."""
        return f"{self._session}{speaker}" if len(speaker) == 1 else speaker

    def go_on(self, ended: Termination, milliseconds: int) -> None:
        """A session has ended and another follows."""
        self.milliseconds += milliseconds
        self.seconds += ended.session_duration_seconds
        self.turns += self._next_turn
        self._next_turn = 0
        self._session += 1

    def end(self, ended: Termination) -> None:
        self.show(
            Termination(
                ended.audio_duration_seconds + self.milliseconds // 1_000,
                ended.session_duration_seconds + self.seconds,
            )
        )


async def stream_file(request: Request, show: Callable[[ServerMessage], None]) -> None:
    """Raises ClientError; what was shown by then is what has been received."""
    sound = open_sound(request.file)
    parameters = {"sample_rate": sound.rate, "encoding": "pcm_s16le", **request.parameters}
    mixer, joined = Mixer(request.channel), Joined(show)
    blocks = _mixed(sound, mixer, request.file)
    while True:
        async with begin_session(request.endpoint, parameters, request.key) as (session, begin):
            progress = Progress()
            progress.begin(begin)
            joined.pass_on(begin)
            ended = await _exchange(session, blocks, progress, joined, request.pace == "realtime")
        if progress.all_sent:
            joined.end(ended)
            return
        joined.go_on(ended, 1_000 * progress.sent // sound.rate)


def _mixed(sound: Sound, mixer: Mixer, name: str) -> Iterator[Samples]:
    was_cancelled = False
    for block in sound.blocks():
        mixed = mixer.mixed(block)
        if mixer.cancelled and not was_cancelled:
            was_cancelled = True
            sys.stderr.write(
                f"ssasr: {name}: the channels cancel each other; channel {mixer.channel} alone "
                "is taken (--channel chooses)\n"
            )
        yield mixed


async def _exchange(
    session: ClientSession,
    blocks: Iterator[Samples],
    progress: Progress,
    joined: Joined,
    real_time: bool,
) -> Termination:
    """One session to its proper end. Raises ClientError for any other."""
    async with plain_nursery() as nursery:
        nursery.start_soon(_send, session, blocks, progress, real_time)
        nursery.start_soon(_ping, session, progress)
        nursery.start_soon(_watch, progress)
        ended: Termination | None = None
        while (message := await session.receive()) is not None:
            progress.alive = trio.current_time()
            if isinstance(message, Termination):
                ended = message  # why it closes is yet to come
                nursery.cancel_scope.deadline = trio.current_time() + CLOSE_SECONDS
                continue
            joined.pass_on(message)
        nursery.cancel_scope.cancel()
    if ended is None or not progress.terminated:
        raise ClientError("the server closed the session before it had said everything")
    return ended


async def _send(
    session: ClientSession, blocks: Iterator[Samples], progress: Progress, real_time: bool
) -> None:
    """Each block at the time its last sample would have been spoken, or at once; until there is no
    more, or it is time for another session."""
    due = trio.current_time()
    loudness = 0.0
    for number, block in enumerate(blocks, 1):
        due += CHUNK_SECONDS
        if real_time:
            await trio.sleep_until(due)
        await session.send_audio(to_pcm(block))
        progress.alive = trio.current_time()
        progress.sent += len(block)
        level = float(np.abs(block).mean()) if len(block) else 0.0
        loudness += (level - loudness) / number
        share = progress.share()
        if share >= LATE or (share >= EARLY and level < QUIET * loudness):
            break
    else:
        progress.all_sent = True
    progress.terminated = True
    await session.send_json(encode(Terminate()))


async def _ping(session: ClientSession, progress: Progress) -> None:
    while await session.ping():
        progress.alive = trio.current_time()
        await trio.sleep(PING_SECONDS)


async def _watch(progress: Progress) -> None:
    while True:
        patience = progress.alive + SILENCE_SECONDS
        await trio.sleep_until(patience)
        if progress.alive + SILENCE_SECONDS <= patience:
            raise ClientError(f"the server has been silent for {SILENCE_SECONDS:.0f} s")
