"""One client's session: a nursery of four tasks joined by bounded channels.

    receive ── packets ──▶ resample ── inputs ──▶ infer ── messages ──▶ emit

``receive`` is the only reader of the WebSocket and ``emit`` its only writer. ``infer`` owns the
stream to the engine and the turn policy. Whatever ends the session, ends it in one way: a task
raises ``SessionEnd`` (or a fault that maps to one), the nursery is cancelled, and the close frame
goes out under a deadline. When a channel is full its writer waits, up to ``receive``, which then
stops reading, so that TCP holds a client back that sends too fast; nothing is lost.

The channels have fast paths: where nothing waits, as nearly always, a packet goes all the way to
the engine's socket in the task that read it, and an answer all the way to the client's, and none of
the four tasks wakes up.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionClosed

from ssasr.audio.decoding import Decoder
from ssasr.errors import EngineBusy, EngineError, EngineLost, EngineUnavailable
from ssasr.protocol.client_link import (
    AudioReceived,
    ClientLink,
    ConfigurationUpdated,
    EndpointForced,
    KeptAlive,
    TerminateRequested,
)
from ssasr.protocol.close_codes import CLOSE_CODES, END_CAUSES, EndCause
from ssasr.protocol.faults import ClientFault, inactivity
from ssasr.protocol.messages import Error, ServerMessage, Termination
from ssasr.protocol.parameters import SessionParameters, begin_configuration, begin_warnings
from ssasr.protocol.recognition import SAMPLE_RATE, Opened
from ssasr.routing.engine_stream import Engines
from ssasr.runtime.handoff import HandoffChannel
from ssasr.session.inference import Endpoint, Inference, Input, Samples, Settings
from ssasr.telemetry.metrics import Metrics

PACKETS = 128
"""Client messages waiting: 6 to 13 s of audio at the 50 or 100 ms a message that clients send."""
INPUTS = 16
"""Decoded packets waiting for the engine's acknowledgement window."""
MESSAGES = 256
"""Messages waiting for a client that reads slowly."""
SEND_DEADLINE = 20.0
"""Seconds for one message to leave; a client that reads nothing for so long is given up."""
CLOSE_DEADLINE = 2.0
"""Seconds for the closing handshake."""
OPEN_PATIENCE = 0.5
"""Seconds that Begin waits for the engine, so that a refusal can come first. Clients allow one."""


class WebSocket(Protocol):
    """What a session uses of its connection; ``websocket_stream.RawWebSocket`` has it."""

    async def get_message(self) -> str | bytes: ...
    async def send_message(self, message: str) -> None: ...
    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...
    @property
    def clear(self) -> bool: ...
    def offer(self, message: str) -> None: ...
    def listen(self, sink: Callable[[str | bytes], bool]) -> None: ...


class MessageFilter(Protocol):
    """What a message becomes before anybody sees it; None: nothing is said."""

    async def __call__(self, message: ServerMessage) -> ServerMessage | None: ...


@frozen
class SessionTerms:
    """What was agreed before the session began."""

    id: str
    parameters: SessionParameters
    model_version: str
    decoder: Decoder
    max_duration: float
    """Seconds until the session expires."""
    expires_at: int
    """The same as Unix seconds, for Begin."""
    redactor: MessageFilter | None = None
    """There if and only if the parameters ask for redaction."""


Packet = AudioReceived | ConfigurationUpdated | EndpointForced


class ClientDisconnected(Exception):
    """The client closed or vanished; there is nobody to say anything to."""


Fault = ClientFault | EngineError | ClientDisconnected

ENGINE_FAULTS: dict[type[EngineError], EndCause] = {
    EngineBusy: EndCause.TOO_MANY_SESSIONS,
    EngineUnavailable: EndCause.OVERLOADED,
    EngineLost: EndCause.ENGINE_LOST,
}


@define(eq=False)
class Session:
    """``run`` returns why the session ended. Raises only what is a bug."""

    terms: SessionTerms
    websocket: WebSocket
    engines: Engines
    metrics: Metrics
    ending: EndCause = EndCause.TERMINATED
    """Why the session ends once the pipeline has run dry."""
    last_message: float = field(factory=trio.current_time)
    audio_seconds: float = 0.0
    """What its engine was given, once the session has ended."""
    held_back: bool = False
    """The receiver waits for room; whatever the client sends stays in its socket."""
    _link: ClientLink = field(init=False)
    _began: float = field(factory=trio.current_time)
    _opened: trio.Event = field(factory=trio.Event)
    _engine: Opened | None = None
    _receiving: trio.CancelScope = field(factory=trio.CancelScope)
    _fault: Fault | None = None
    _bug: Exception | None = None
    _sending: bool = False
    _listening: bool = False
    """The next frame is for ``_take_in``, which waits for it."""
    _packets: HandoffChannel[Packet] = field(factory=partial(HandoffChannel, PACKETS))
    _inputs: HandoffChannel[Input] = field(factory=partial(HandoffChannel, INPUTS))
    _messages: HandoffChannel[ServerMessage] = field(factory=partial(HandoffChannel, MESSAGES))
    _unfiltered: HandoffChannel[ServerMessage] = field(init=False)
    """What is decided; the same as ``_messages`` unless something is to be redacted."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._link = ClientLink(self.terms.parameters)
        if (self.terms.redactor is None) != (self.terms.parameters.redaction is None):
            raise ValueError("a session that asks for redaction needs a redactor")
        redacts = self.terms.redactor is not None
        self._unfiltered = HandoffChannel(MESSAGES) if redacts else self._messages

    async def run(self) -> EndCause:
        self._packets.set_fast_path(self._resample_now)
        self._messages.set_fast_path(self._emit_now)
        self.websocket.listen(self._take_in_now)
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._contain, self._receive)
            nursery.start_soon(self._contain, self._resample)
            nursery.start_soon(self._contain, self._infer)
            if self.terms.redactor is not None:
                nursery.start_soon(self._contain, partial(self._redact, self.terms.redactor))
            await self._contain(self._emit)
            self._scope.cancel()
        if self._bug is not None:
            raise self._bug
        return await self._close()

    def wind_down(self, cause: EndCause) -> None:
        """Take no more audio, answer what was received, then close because of ``cause``."""
        if not self._receiving.cancel_called:
            self.ending = cause
            self._listening = False
            self._receiving.cancel()

    def give_up(self) -> None:
        """The client is dead; end without a word."""
        self._fault = self._fault or ClientDisconnected()
        self._scope.cancel()

    async def _contain(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run one of the four; the first fault ends them all."""
        try:
            await task()
        except (ClientFault, EngineError, ClientDisconnected) as fault:
            self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        self._fault = self._fault or fault
        if self._sending:  # a frame that is cut here would be the end of what can be said
            self._scope.deadline = trio.current_time() + CLOSE_DEADLINE
        else:
            self._scope.cancel()

    async def _receive(self) -> None:
        with self._receiving:
            self._receiving.deadline = trio.current_time() + self.terms.max_duration
            await self._take_in()
        self._listening = False
        if self._receiving.cancelled_caught and self.ending is EndCause.TERMINATED:
            self.ending = EndCause.EXPIRED
        self._packets.close()
        while True:  # go on reading: pings want answers, and the client may leave
            await self._next_frame()

    async def _take_in(self) -> None:
        while True:
            self._listening = True
            frame = await self._next_frame()
            self._listening = False
            for event in self._link.receive(frame):
                match event:
                    case TerminateRequested():
                        return
                    case KeptAlive():
                        pass
                    case _:
                        await self._hand_on(event)

    def _take_in_now(self, frame: str | bytes) -> bool:
        """Fast path of audio, in the task that reads the socket."""
        if not self._listening or self._fault is not None:
            return False
        if not isinstance(frame, bytes) or not self._packets.clear:
            return False
        self.last_message = trio.current_time()
        try:
            for event in self._link.receive(frame):
                if isinstance(event, AudioReceived):
                    self._packets.put_nowait(event)
        except (ClientFault, EngineError) as fault:
            self._fail(fault)
        except Exception as bug:  # which is the session's, and not that of the socket's reader
            self._bug = bug
            self._scope.cancel()
        return True

    async def _next_frame(self) -> str | bytes:
        timeout = self.terms.parameters.inactivity_timeout
        try:
            if timeout is None:  # as nearly always, so that no scope is made for each message
                frame = await self.websocket.get_message()
            else:
                frame = await self._next_frame_within(timeout)
        except ConnectionClosed:
            raise ClientDisconnected from None
        self.last_message = trio.current_time()
        return frame

    async def _next_frame_within(self, timeout: int) -> str | bytes:
        """Messages on the fast path count as well."""
        deadline = trio.current_time() + timeout
        while trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                return await self.websocket.get_message()
            deadline = max(deadline, self.last_message + timeout)
        raise inactivity(timeout)

    async def _hand_on(self, event: Packet) -> None:
        try:
            self._packets.put_nowait(event)
        except trio.WouldBlock:
            self.held_back = True
            await self._packets.put(event)
            self.held_back = False
            self.last_message = trio.current_time()

    async def _resample(self) -> None:
        decoder = self.terms.decoder
        while True:
            try:
                packet = await self._packets.get()
            except trio.EndOfChannel:
                break
            match packet:
                case AudioReceived(data):
                    if pcm := decoder.decode(data):
                        await self._inputs.put(Samples(pcm))
                case ConfigurationUpdated(parameters):
                    await self._inputs.put(Settings(parameters))
                case EndpointForced():
                    await self._inputs.put(Endpoint())
        if pcm := decoder.flush():
            await self._inputs.put(Samples(pcm))
        self._inputs.close()

    def _resample_now(self, packet: Packet) -> bool:
        """Fast path of audio."""
        if not isinstance(packet, AudioReceived) or not self._inputs.clear:
            return False
        if pcm := self.terms.decoder.decode(packet.data):
            self._inputs.put_nowait(Samples(pcm))
        return True

    async def _infer(self) -> None:
        terms = self.terms
        inference = Inference(
            terms.parameters, self.engines, self.metrics, self._inputs, self._unfiltered
        )
        try:
            await inference.run(terms.id, terms.model_version, self._engine_opened)
        finally:  # however it ends, this much was listened to
            self.audio_seconds = inference.samples / SAMPLE_RATE
            self.metrics.audio_seconds.inc(self.audio_seconds)
        await self._unfiltered.put(
            Termination(
                audio_duration_seconds=round(inference.samples / SAMPLE_RATE),
                session_duration_seconds=round(trio.current_time() - self._began),
            )
        )
        self._unfiltered.close()

    async def _redact(self, redactor: MessageFilter) -> None:
        while True:
            try:
                message = await self._unfiltered.get()
            except trio.EndOfChannel:
                break
            if (redacted := await redactor(message)) is not None:
                await self._messages.put(redacted)
        self._messages.close()

    def _engine_opened(self, opened: Opened) -> None:
        self._engine = opened
        self._opened.set()

    async def _emit(self) -> None:
        with trio.move_on_after(OPEN_PATIENCE):
            await self._opened.wait()
        engine = self._engine or Opened(self.terms.model_version, 0, speakers=True)
        configuration = begin_configuration(
            self.terms.parameters, engine.model, speakers=engine.speakers
        )
        await self._send(self._link.begin(self.terms.id, self.terms.expires_at, configuration))
        for warning in begin_warnings(self.terms.parameters):
            await self._send(self._link.send(warning))
        while True:
            try:
                message = await self._messages.get()
            except trio.EndOfChannel:
                break
            await self._send(self._link.send(message))

    def _emit_now(self, message: ServerMessage) -> bool:
        """Fast path of a message to the client."""
        if not self.websocket.clear or self._fault is not None:
            return False
        self.websocket.offer(self._link.send(message))
        return True

    async def _send(self, frame: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # nothing is torn that has not begun
        self._sending = True
        try:
            with trio.fail_after(SEND_DEADLINE):
                await self.websocket.send_message(frame)
        except trio.TooSlowError:
            raise ClientDisconnected from None  # it is there but does not read; the frame is torn
        except ConnectionClosed:
            raise ClientDisconnected from None
        self._sending = False
        if self._fault is not None:
            self._scope.cancel()  # that waited for this frame
            await trio.lowlevel.checkpoint()

    async def _close(self) -> EndCause:
        """The pipeline has ended; tell the client why."""
        fault = self._fault
        if isinstance(fault, ClientDisconnected):
            return EndCause.CLIENT_VANISHED if self._sending else EndCause.CLIENT_CLOSED
        if isinstance(fault, EngineError):
            cause = ENGINE_FAULTS[type(fault)]
            fault = ClientFault(END_CAUSES[cause], cause=cause)
        with trio.move_on_after(CLOSE_DEADLINE, shield=True), suppress(ConnectionClosed):
            if self._sending:  # a torn frame: nothing more can be said on this socket
                pass
            elif fault is not None:
                error = Error(error=fault.text, error_code=int(fault.code))
                await self.websocket.send_message(self._link.send(error))
                await self.websocket.aclose(int(fault.code), fault.reason)
            else:
                code = END_CAUSES[self.ending]
                await self.websocket.aclose(int(code), CLOSE_CODES[code].reason)
        return self.ending if fault is None else fault.cause
