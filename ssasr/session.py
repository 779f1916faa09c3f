"""One client's session: a nursery of four tasks joined by bounded channels.

    receive ── packets ──▶ resample ── heard ──▶ infer ── said ──▶ emit

``receive`` is the only reader of the WebSocket and ``emit`` its only writer. ``infer`` owns the
stream to the engine and the turn policy. Whatever ends the session, ends it in one way: a task
raises ``SessionEnd`` (or a fault that maps to one), the nursery is cancelled, and the close frame
goes out under a deadline. When a channel is full its writer waits, up to ``receive``, which then
stops reading, so that TCP holds a client back that sends faster than it is heard; nothing is lost.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionClosed

from ssasr.audio import Decoder
from ssasr.errors import EngineBusy, EngineError, EngineLost, EngineUnavailable
from ssasr.inference import Endpoint, Heard, Inference, Samples, Settings
from ssasr.observability import Metrics
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
from ssasr.protocol.parameters import SessionParameters, begin_configuration
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.routing.engine_stream import Engines

PACKETS = 128
"""Client messages waiting: 6 to 13 s of audio at the 50 or 100 ms a message that clients send."""
HEARD = 16
"""Decoded packets waiting for the engine's acknowledgement window."""
SAID = 256
"""Messages waiting for a client that reads slowly."""
SEND_DEADLINE = 20.0
"""Seconds for one message to leave; a client that reads nothing for so long is given up."""
CLOSE_DEADLINE = 2.0
"""Seconds for the closing handshake."""
OPEN_PATIENCE = 0.5
"""Seconds that Begin waits for the engine, so that a refusal can come first. Clients allow one."""


class WebSocket(Protocol):
    """What a session uses of trio-websocket's connection."""

    async def get_message(self) -> str | bytes: ...
    async def send_message(self, message: str) -> None: ...
    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...


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


Packet = AudioReceived | ConfigurationUpdated | EndpointForced


class ClientGone(Exception):
    """The client closed or vanished; there is nobody to say anything to."""


Fault = ClientFault | EngineError | ClientGone

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
    _model: str = ""
    _receiving: trio.CancelScope = field(factory=trio.CancelScope)
    _fault: Fault | None = None
    _sending: bool = False
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._link = ClientLink(self.terms.parameters)

    async def run(self) -> EndCause:
        to_resample, packets = trio.open_memory_channel[Packet](PACKETS)
        to_infer, heard = trio.open_memory_channel[Heard](HEARD)
        to_emit, said = trio.open_memory_channel[ServerMessage](SAID)
        infer = partial(self._infer, heard, to_emit)
        async with trio.open_nursery() as nursery:
            scope = self._scope = nursery.cancel_scope
            nursery.start_soon(self._contain, scope, partial(self._receive, to_resample))
            nursery.start_soon(self._contain, scope, partial(self._resample, packets, to_infer))
            nursery.start_soon(self._contain, scope, infer)
            await self._contain(scope, partial(self._emit, said))
            scope.cancel()
        return await self._close()

    def wind_down(self, cause: EndCause) -> None:
        """Take no more audio, say all that was heard, then close because of ``cause``."""
        if not self._receiving.cancel_called:
            self.ending = cause
            self._receiving.cancel()

    def give_up(self) -> None:
        """The client is dead; end without a word."""
        self._fault = self._fault or ClientGone()
        self._scope.cancel()

    async def _contain(self, scope: trio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
        """Run one of the four; the first fault ends them all."""
        try:
            await task()
        except (ClientFault, EngineError, ClientGone) as fault:
            self._fault = self._fault or fault
            if self._sending:  # a frame that is cut here would be the end of what can be said
                scope.deadline = trio.current_time() + CLOSE_DEADLINE
            else:
                scope.cancel()

    async def _receive(self, packets: trio.MemorySendChannel[Packet]) -> None:
        async with packets:
            with self._receiving:
                self._receiving.deadline = trio.current_time() + self.terms.max_duration
                await self._take_in(packets)
            if self._receiving.cancelled_caught and self.ending is EndCause.TERMINATED:
                self.ending = EndCause.EXPIRED
        while True:  # go on reading: pings want answers, and the client may leave
            await self._next_frame()

    async def _take_in(self, packets: trio.MemorySendChannel[Packet]) -> None:
        while True:
            for event in self._link.receive(await self._next_frame()):
                match event:
                    case TerminateRequested():
                        return
                    case KeptAlive():
                        pass
                    case _:
                        await self._hand_on(packets, event)

    async def _next_frame(self) -> str | bytes:
        timeout = self.terms.parameters.inactivity_timeout
        try:
            if timeout is None:  # as nearly always, so that no scope is made for each message
                frame = await self.websocket.get_message()
            else:
                with trio.fail_after(timeout):
                    frame = await self.websocket.get_message()
        except trio.TooSlowError:
            raise inactivity(timeout or 0) from None
        except ConnectionClosed:
            raise ClientGone from None
        self.last_message = trio.current_time()
        return frame

    async def _hand_on(self, packets: trio.MemorySendChannel[Packet], event: Packet) -> None:
        try:
            packets.send_nowait(event)
        except trio.WouldBlock:
            self.held_back = True
            await packets.send(event)
            self.held_back = False
            self.last_message = trio.current_time()

    async def _resample(
        self, packets: trio.MemoryReceiveChannel[Packet], heard: trio.MemorySendChannel[Heard]
    ) -> None:
        decoder = self.terms.decoder
        async with packets, heard:
            async for packet in packets:
                match packet:
                    case AudioReceived(data):
                        if len(samples := decoder.decode(data)):
                            await heard.send(Samples(samples))
                    case ConfigurationUpdated(parameters):
                        await heard.send(Settings(parameters))
                    case EndpointForced():
                        await heard.send(Endpoint())
            if len(samples := decoder.flush()):
                await heard.send(Samples(samples))

    async def _infer(
        self, heard: trio.MemoryReceiveChannel[Heard], said: trio.MemorySendChannel[ServerMessage]
    ) -> None:
        terms = self.terms
        inference = Inference(terms.parameters, self.engines, self.metrics, heard, said)
        async with said:
            try:
                await inference.run(terms.id, terms.model_version, self._engine_opened)
            finally:  # however it ends, this much was listened to
                self.audio_seconds = inference.samples / SAMPLE_RATE
                self.metrics.audio_seconds.inc(self.audio_seconds)
            await said.send(
                Termination(
                    audio_duration_seconds=round(inference.samples / SAMPLE_RATE),
                    session_duration_seconds=round(trio.current_time() - self._began),
                )
            )

    def _engine_opened(self, model: str) -> None:
        self._model = model
        self._opened.set()

    async def _emit(self, said: trio.MemoryReceiveChannel[ServerMessage]) -> None:
        with trio.move_on_after(OPEN_PATIENCE):
            await self._opened.wait()
        await self._send(
            self._link.begin(
                self.terms.id,
                self.terms.expires_at,
                begin_configuration(self.terms.parameters, self._model or self.terms.model_version),
            )
        )
        async with said:
            async for message in said:
                await self._send(self._link.send(message))

    async def _send(self, frame: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # nothing is torn that has not begun
        self._sending = True
        try:
            with trio.fail_after(SEND_DEADLINE):
                await self.websocket.send_message(frame)
        except trio.TooSlowError:
            raise ClientGone from None  # it is there but does not read; the frame is torn
        except ConnectionClosed:
            raise ClientGone from None
        self._sending = False
        if self._fault is not None:
            self._scope.cancel()  # that waited for this frame
            await trio.lowlevel.checkpoint()

    async def _close(self) -> EndCause:
        """The pipeline has ended; tell the client why."""
        fault = self._fault
        if isinstance(fault, ClientGone):
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
