"""``ssasr mic``: the microphone, live words, and how loud it is.

sounddevice and its PortAudio library are loaded only here and only when the command runs: a server
needs neither.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import trio
from attrs import define, field, frozen
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ssasr.client.connection import ClientError, ClientSession, open_session
from ssasr.client.transcribe import PlainLines, Screen, tentative
from ssasr.protocol.codec import encode
from ssasr.protocol.messages import ServerMessage, Terminate, Turn
from ssasr.runtime.process import plain_nursery, run

MESSAGE_SECONDS = 0.08
WAITING = 512
"""Messages between the audio thread and the network: 40 s, after which audio is lost, and said."""
FULL_SCALE = 32_768
METER_WIDTH = 24
METER_FLOOR = 60.0
"""Decibels below full scale at which the meter is empty."""

Deliver = Callable[[bytes], None]


class Input(Protocol):
    """A microphone: ``open`` gives the block in which it delivers, from a thread of its own."""

    @property
    def rate(self) -> int: ...
    def open(self, deliver: Deliver) -> AbstractContextManager[object]: ...


@frozen
class Request:
    endpoint: str
    key: str
    parameters: dict[str, object]


# -- devices ---------------------------------------------------------------------------------------


def load_sounddevice() -> Any:
    """The module. Raises ClientError with what to install."""
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise ClientError("`ssasr mic` needs sounddevice: pip install 'ssasr[mic]'") from None
    except OSError:
        raise ClientError(
            "`ssasr mic` needs the PortAudio library: apt-get install libportaudio2 "
            "(macOS: brew install portaudio)"
        ) from None
    return sounddevice


def list_devices(sounddevice: Any) -> list[str]:
    """A line for each device that can record, the default one marked. Raises ClientError."""
    default = sounddevice.default.device[0]
    lines = []
    for number, device in enumerate(sounddevice.query_devices()):
        if device["max_input_channels"] > 0:
            mark = "*" if number == default else " "
            lines.append(
                f"{mark} {number}: {device['name']} ({device['default_samplerate']:.0f} Hz)"
            )
    if not lines:
        raise ClientError("no microphone found")
    return lines


@frozen
class Microphone:
    """One device, at its own rate."""

    _sounddevice: Any
    _number: int
    rate: int

    @classmethod
    def find(cls, sounddevice: Any, name: str | None) -> "Microphone":
        """``name``: its number or a part of its name; None: the system's default. Raises
        ClientError."""
        wanted = int(name) if name is not None and name.isdigit() else name
        try:
            device = sounddevice.query_devices(wanted, "input")
        except (ValueError, sounddevice.PortAudioError) as error:
            if name is None:
                raise ClientError("no microphone found") from None
            raise ClientError(f"no microphone {name!r}: {_first_line(error)}") from None
        return cls(sounddevice, device["index"], round(device["default_samplerate"]))

    @contextmanager
    def open(self, deliver: Deliver) -> Iterator[None]:
        """Raises ClientError if the device cannot be opened."""
        try:
            stream = self._sounddevice.RawInputStream(
                samplerate=self.rate,
                blocksize=round(self.rate * MESSAGE_SECONDS),
                device=self._number,
                channels=1,
                dtype="int16",
                callback=lambda data, *_: deliver(bytes(data)),
            )
        except self._sounddevice.PortAudioError as error:
            raise ClientError(f"the microphone cannot be opened: {_first_line(error)}") from None
        with stream:
            yield


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# -- what is shown ---------------------------------------------------------------------------------


def decibels(pcm: bytes) -> float:
    """The loudness of 16-bit samples below full scale; -inf for silence."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    power = float((samples**2).mean()) / FULL_SCALE**2 if len(samples) else 0.0
    return 10 * float(np.log10(power)) if power > 0 else -np.inf


def meter(level: float) -> str:
    """A bar of METER_WIDTH characters for decibels below full scale."""
    share = min(1.0, max(0.0, 1 + level / METER_FLOOR))
    full = round(share * METER_WIDTH)
    return "█" * full + "·" * (METER_WIDTH - full)


@define(eq=False)
class LiveMicrophone:
    """For terminals: the open turn in place, the meter below it."""

    _console: Console
    _live: Live
    _words: Text = field(factory=lambda: Text("Speak; Ctrl-C ends.", style="dim"))
    _level: float = -np.inf

    def show(self, message: ServerMessage) -> None:
        if not isinstance(message, Turn):
            return
        if message.end_of_turn:
            self._console.print(Text(f"■ {message.transcript}", style="bold green"))
            self._words = Text("")
        else:
            self._words = tentative(message)
        self._draw()

    def show_level(self, pcm: bytes) -> None:
        self._level = decibels(pcm)
        self._draw()

    def _draw(self) -> None:
        bar = Text(f"🎤 {meter(self._level)}", style="dim")
        self._live.update(Group(self._words, bar), refresh=True)


# -- the session -----------------------------------------------------------------------------------


def listen(request: Request, device: Input) -> None:
    """Until Ctrl-C, or the server ends the session. Raises ClientError."""
    console = Console()
    if not console.is_terminal:
        run(lambda: stream_microphone(request, device, PlainLines(), lambda _: None))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        screen = LiveMicrophone(console, live)
        run(lambda: stream_microphone(request, device, screen, screen.show_level))


async def stream_microphone(
    request: Request, device: Input, screen: Screen, show_level: Callable[[bytes], None]
) -> None:
    """Raises ClientError."""
    parameters = {"sample_rate": device.rate, "encoding": "pcm_s16le", **request.parameters}
    async with open_session(request.endpoint, parameters, request.key) as session:
        async with plain_nursery() as nursery:
            audio = Audio.new()
            await nursery.start(stop_at_interrupt, audio.close)
            with audio.fed_by(device):
                nursery.start_soon(send_audio, session, audio, show_level)
                while (message := await session.receive()) is not None:
                    screen.show(message)
            nursery.cancel_scope.cancel()


@define(eq=False)
class Audio:
    """What the device delivers, for one task of trio's; ends when ``close`` is called."""

    _send: trio.MemorySendChannel[bytes]
    received: trio.MemoryReceiveChannel[bytes]
    lost: int = 0

    @classmethod
    def new(cls) -> "Audio":
        return cls(*trio.open_memory_channel[bytes](WAITING))

    @contextmanager
    def fed_by(self, device: Input) -> Iterator[None]:
        """The open device, whose thread hands its audio over to this one."""
        token = trio.lowlevel.current_trio_token()
        with device.open(lambda pcm: token.run_sync_soon(self.put, pcm)):
            yield
        if self.lost:
            seconds = self.lost * MESSAGE_SECONDS
            sys.stderr.write(f"ssasr: the connection was too slow; {seconds:.0f} s were not sent\n")

    def put(self, pcm: bytes) -> None:
        try:
            self._send.send_nowait(pcm)
        except trio.WouldBlock:
            self.lost += 1
        except trio.ClosedResourceError:
            pass  # what the device still had after the end

    def close(self) -> None:
        self._send.close()


async def send_audio(
    session: ClientSession, audio: Audio, show_level: Callable[[bytes], None]
) -> None:
    async for chunk in audio.received:
        show_level(chunk)
        await session.send_audio(chunk)
    await session.send_json(encode(Terminate()))


async def stop_at_interrupt(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first Ctrl-C finishes what was said; the second one ends the program."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stop()
            break
    await trio.sleep_forever()


def main(request: Request, device_name: str | None, *, only_list: bool) -> int:
    """The command. Raises ClientError."""
    sounddevice = load_sounddevice()
    if only_list:
        sys.stdout.write("\n".join(list_devices(sounddevice)) + "\n")
        return 0
    listen(request, Microphone.find(sounddevice, device_name))
    return 0
