"""One client's session: a nursery of four tasks joined by bounded channels.

    receive ── packets ──▶ resample ── inputs ──▶ infer ── messages ──▶ emit

``receive`` is the only reader of the WebSocket and ``emit`` its only writer. ``infer`` owns the
stream to the engine and the turn policy. A session always ends in the same way: a task raises a
fault (``Fault``) or all tasks have finished, the nursery is cancelled, and a close frame is sent
under a deadline. When a channel is full its writer waits, back to ``receive``, which then reads no
more, so that TCP holds the client back and nothing is lost.

Each task runs a ``Stage``. While nothing waits anywhere, a packet passes through all stages to the
engine's socket in the task that read it, and an answer likewise to the client's socket, without
waking any of the four tasks.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol

import trio
from attrs import Factory, define, field, frozen

from ssasr.audio.pcm import Decoder
from ssasr.errors import EngineBusy, EngineError, EngineLost, EngineUnavailable
from ssasr.net.websocket import ConnectionClosed, MessageSocket
from ssasr.protocol.client_link import (
    AudioReceived,
    ClientLink,
    ConfigurationUpdated,
    EndpointForced,
    Event,
    KeptAlive,
    TerminateRequested,
)
from ssasr.protocol.close_codes import CLOSE_CODES, END_CAUSES, CloseCode, EndCause
from ssasr.protocol.faults import ClientFault, inactivity
from ssasr.protocol.messages import (
    Answered,
    Begin,
    Error,
    SessionMessage,
    Termination,
    Turn,
    WarningMessage,
)
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.recognition import SAMPLE_RATE, Opened
from ssasr.protocol.settings import begin_configuration, begin_warnings
from ssasr.routing.engine_stream import Engines
from ssasr.runtime.handoff import HandoffChannel, Sink, Stage
from ssasr.session.companion import Companion
from ssasr.session.inference import (
    CATCH_UP,
    Endpoint,
    Inference,
    Input,
    Samples,
    SessionTotals,
    Settings,
)
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics

log = get_logger(__name__)

PACKETS = 1 << 18
"""Bytes of client messages waiting: 8 s of PCM at 16 kHz."""
INPUTS = 1 << 16
"""Bytes of decoded packets waiting for the engine's acknowledgement window: 2 s."""
MESSAGES = 1 << 18
"""Approximate bytes of messages waiting for a client that reads slowly."""
ITEM = 64
"""Bytes counted for a waiting item besides its content."""
CONFIGURATION = 1 << 14
"""Bytes counted for new parameters: a hundred key terms, a prompt and a context."""
SEND_DEADLINE = 20.0
"""Seconds to send one message; a client that takes longer to read it is disconnected."""
CLOSE_DEADLINE = 2.0
"""Seconds for the closing handshake."""
CONTROL = 5
"""Messages that new parameters and a forced end count as (``WebSocket.note_control``)."""
LEAST_AUDIO = 64
"""Bytes; a message with less audio counts like one without."""
OPEN_PATIENCE = 3.0
"""Seconds that Begin waits for an engine to take the stream, so that a refusal can come first:
longer than the time-out of a connection to an engine. Usually it takes milliseconds."""


class SessionLink(Protocol):
    """A client's protocol, as a machine without I/O (``protocol.client_link.ClientLink``)."""

    def receive(self, frame: str | bytes) -> Sequence[Event]:
        """What a frame from the client means. Raises ClientFault."""

    def frames(self, message: SessionMessage) -> Sequence[str]:
        """What the client is sent of it."""

    def refusal(self, fault: ClientFault) -> Sequence[str]:
        """What it is sent before a close frame for which the session itself is not to blame."""


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
    companions: tuple[Companion, ...] = ()
    """In the order in which they see messages: redaction first."""


Packet = AudioReceived | ConfigurationUpdated | EndpointForced


class ClientDisconnected(Exception):
    """The client has closed the connection, or the connection has broken."""


Fault = ClientFault | EngineError | ClientDisconnected

ENGINE_FAULTS: dict[type[EngineError], EndCause] = {
    EngineBusy: EndCause.TOO_MANY_SESSIONS,
    EngineUnavailable: EndCause.OVERLOADED,
    EngineLost: EndCause.ENGINE_LOST,
}


def weigh_packet(packet: Packet) -> int:
    if isinstance(packet, AudioReceived):
        return ITEM + len(packet.data)
    return CONFIGURATION if isinstance(packet, ConfigurationUpdated) else ITEM


def weigh_input(item: Input) -> int:
    if isinstance(item, Samples):
        return ITEM + len(item.pcm)
    return CONFIGURATION if isinstance(item, Settings) else ITEM


def weigh_message(message: SessionMessage) -> int:
    """Approximate bytes; words that do not change are shared between messages."""
    return 4 * ITEM + 8 * len(message.words) if isinstance(message, Turn) else 4 * ITEM


@define(eq=False)
class Session:
    """``run`` returns why the session ended. An exception that it raises is a bug."""

    terms: SessionTerms
    websocket: MessageSocket
    engines: Engines
    metrics: Metrics
    ending: EndCause = EndCause.TERMINATED
    """Why the session ends once all audio received has been answered."""
    last_message: float = field(factory=trio.current_time)
    link: SessionLink = field(
        default=Factory(lambda self: ClientLink(self.terms.parameters), takes_self=True)
    )
    """Of our own protocol, unless it is another's."""
    early: Sequence[str | bytes] = ()
    """What the client had sent before the session began."""
    _now: Callable[[], float] = field(
        factory=lambda: trio.lowlevel.current_clock().current_time, init=False
    )
    """``trio.current_time``, at half its price; for what is done for each message."""
    _began: float = field(factory=trio.current_time)
    _opened: trio.Event = field(factory=trio.Event)
    _engine: Opened | None = None
    _inference: Inference | None = None
    _receiving: trio.CancelScope = field(factory=trio.CancelScope)
    _fault: Fault | None = None
    _sending: bool = False
    _packets: HandoffChannel[Packet] = field(factory=partial(HandoffChannel, PACKETS, weigh_packet))
    _inputs: HandoffChannel[Input] = field(factory=partial(HandoffChannel, INPUTS, weigh_input))
    _messages: HandoffChannel[SessionMessage] = field(
        factory=partial(HandoffChannel, MESSAGES, weigh_message)
    )
    _unfiltered: HandoffChannel[SessionMessage] = field(init=False)
    """Messages before the companions; the same channel as ``_messages`` without any."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._unfiltered = self._messages
        if self.terms.companions:
            self._unfiltered = HandoffChannel(MESSAGES, weigh_message)

    async def run(self) -> EndCause:
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._contain, self._receive)
            nursery.start_soon(self._contain, self._resample)
            nursery.start_soon(self._contain, self._infer)
            if self.terms.companions:
                nursery.start_soon(self._contain, self._filter)
            for companion in self.terms.companions:
                nursery.start_soon(companion.run, self._messages)
            await self._contain(self._emit)
            self._scope.cancel()
        return await self._close()

    @property
    def totals(self) -> SessionTotals:
        return SessionTotals() if self._inference is None else self._inference.totals

    @property
    def held_back(self) -> bool:
        """Whether receiving has stopped because a channel is full."""
        return self._packets.blocked

    def warn_held_back(self) -> None:
        """The client has sent so much that no more of it is read for now. Many close by themselves
        when their ping is not answered within 20 s, and would not know why."""
        log.warning("a client is held back: it sends faster than its engine works")
        text = (
            "Audio arrives faster than it is recognised; no more of it is read for now, nor are "
            "pings behind it. Send more slowly, or wait longer for pongs"
        )
        with suppress(trio.ClosedResourceError):  # it is all said already
            self._messages.offer(WarningMessage(int(CloseCode.INPUT_RATE), text))

    def wind_down(self, cause: EndCause) -> None:
        """Receive no more, answer the audio received, then close with ``cause``."""
        if not self._receiving.cancel_called:
            self.ending = cause
            self._receiving.cancel()

    def give_up(self) -> None:
        """The client is dead: end without sending anything."""
        self._fault = self._fault or ClientDisconnected()
        self._scope.cancel()

    async def _contain(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run one of the four tasks; the first fault ends them all."""
        try:
            await task()
        except (ClientFault, EngineError, ClientDisconnected) as fault:
            self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        self._fault = self._fault or fault
        if self._sending:  # let the frame be finished: after half a frame no error could be sent
            self._scope.deadline = trio.current_time() + CLOSE_DEADLINE
        else:
            self._scope.cancel()

    # -- receive -----------------------------------------------------------------------------------

    async def _receive(self) -> None:
        frames = _ClientMessages(self)
        expiry = trio.current_time() + self.terms.max_duration
        with self._receiving:
            self._receiving.deadline = expiry
            for frame in self.early:
                for packet in self._read(frame):
                    await self._packets.send(packet)
            await Stage(frames, self._read, self._packets).run()
        if trio.current_time() >= expiry and self.ending is EndCause.TERMINATED:
            self.ending = EndCause.EXPIRED
        self._packets.close()
        await frames.discard()

    def _read(self, frame: str | bytes) -> Sequence[Packet]:
        """The packets in one client message. Raises ClientFault."""
        self.last_message = self._now()
        packets: list[Packet] = []
        for event in self.link.receive(frame):
            match event:
                case AudioReceived() | ConfigurationUpdated() | EndpointForced():
                    packets.append(event)
                case TerminateRequested():
                    self._receiving.cancel()
                case Answered():
                    self._messages.offer(event)
                case KeptAlive():
                    pass
        first = packets[0] if packets else AudioReceived(b"")
        if not isinstance(first, AudioReceived):
            self.websocket.note_control(CONTROL)
        elif len(first.data) < LEAST_AUDIO:
            self.websocket.note_control()
        return packets

    # -- resample ----------------------------------------------------------------------------------

    async def _resample(self) -> None:
        await Stage(self._packets, self._decode, self._inputs).run()
        if pcm := self.terms.decoder.flush():
            await self._inputs.send(Samples(pcm))
        self._inputs.close()

    def _decode(self, packet: Packet) -> Sequence[Input]:
        match packet:
            case AudioReceived(data):
                pcm = self.terms.decoder.decode(data)
                return (Samples(pcm),) if pcm else ()
            case ConfigurationUpdated(parameters):
                return (Settings(parameters),)
            case EndpointForced(acknowledged):
                return (Endpoint(acknowledged),)

    # -- infer -------------------------------------------------------------------------------------

    async def _infer(self) -> None:
        terms = self.terms
        inference = self._inference = Inference(
            terms.parameters, self.engines, self.metrics, self._inputs, self._unfiltered
        )
        with self.metrics.audio_seconds.follow(lambda: inference.samples / SAMPLE_RATE):
            await inference.run(terms.id, terms.model_version, self._engine_opened)
        await self._unfiltered.send(
            Termination(
                audio_duration_seconds=round(inference.samples / SAMPLE_RATE),
                session_duration_seconds=round(trio.current_time() - self._began),
            )
        )
        self._unfiltered.close()

    async def _filter(self) -> None:
        while True:
            try:
                message: SessionMessage | None = await self._unfiltered.receive()
            except trio.EndOfChannel:
                break
            for companion in self.terms.companions:
                if message is not None:
                    message = await companion(message)
            if message is not None:
                await self._messages.send(message)
        self._messages.close()

    def _engine_opened(self, opened: Opened) -> None:
        self._engine = opened
        self._opened.set()

    # -- emit --------------------------------------------------------------------------------------

    async def _emit(self) -> None:
        with trio.move_on_after(OPEN_PATIENCE):
            await self._opened.wait()
        engine = self._engine or Opened(self.terms.model_version, 0, speakers=True)
        configuration = begin_configuration(
            self.terms.parameters, engine.model, speakers=engine.speakers
        )
        begin = Begin(self.terms.id, self.terms.expires_at, configuration)
        opening: list[SessionMessage] = [begin, *begin_warnings(self.terms.parameters)]
        for message in opening:
            for frame in self.link.frames(message):
                await self.send(frame)
        await Stage(self._messages, self.link.frames, self).run()

    @property
    def clear(self) -> bool:
        return self.websocket.clear and self._fault is None

    def offer(self, frame: str) -> None:
        self.websocket.offer(frame)

    async def send(self, frame: str) -> None:
        """Raises ClientDisconnected."""
        await trio.lowlevel.checkpoint_if_cancelled()  # nothing is torn that has not begun
        self._sending = True
        try:
            with trio.fail_after(SEND_DEADLINE):
                await self.websocket.send(frame)
        except trio.TooSlowError:
            raise ClientDisconnected from None  # it does not read; half a frame may be sent
        except ConnectionClosed:
            self._sending = False
            raise ClientDisconnected from None
        self._sending = False
        if self._fault is not None:
            self._scope.cancel()  # _fail has waited for this frame
            await trio.lowlevel.checkpoint()

    async def _close(self) -> EndCause:
        """All tasks have ended: send the client an Error, if there was a fault, and close."""
        fault = self._fault
        if isinstance(fault, ClientDisconnected):
            return EndCause.CLIENT_VANISHED if self._sending else EndCause.CLIENT_CLOSED
        if isinstance(fault, EngineError):
            cause = next(
                ENGINE_FAULTS[kind] for kind in type(fault).__mro__ if kind in ENGINE_FAULTS
            )
            fault = ClientFault(END_CAUSES[cause], cause=cause)
        with trio.move_on_after(CLOSE_DEADLINE, shield=True), suppress(ConnectionClosed):
            if self._sending:  # half a frame was sent: nothing can follow it
                pass
            elif fault is not None:
                error = Error(error=fault.text, error_code=int(fault.code))
                for frame in self.link.frames(error):
                    await self.websocket.send(frame)
                await self.websocket.aclose(int(fault.code), fault.reason)
            else:
                code = END_CAUSES[self.ending]
                await self.websocket.aclose(int(code), CLOSE_CODES[code].reason)
        return self.ending if fault is None else fault.cause


@frozen(eq=False)
class _ClientMessages:
    """The client's messages as a source; raises when none comes within the inactivity timeout."""

    session: Session

    def deliver_to(self, sink: Sink[str | bytes]) -> None:
        self.session.websocket.deliver_to(sink)

    async def receive(self) -> str | bytes:
        """Raises ClientDisconnected, ClientFault."""
        timeout = self.session.terms.parameters.inactivity_timeout
        try:
            if timeout is None:  # nearly always: no cancel scope for each message
                return await self.session.websocket.receive()
            return await self._receive_within(timeout)
        except ConnectionClosed:
            raise ClientDisconnected from None

    async def discard(self) -> NoReturn:
        """Go on reading what no longer matters, until the client leaves: ClientDisconnected. It
        owes nothing more, so it may be silent for as long as its last words take."""
        try:
            while True:
                await self.session.websocket.receive()
        except ConnectionClosed:
            raise ClientDisconnected from None

    async def _receive_within(self, timeout: int) -> str | bytes:
        """Messages that take the fast path count as well."""
        deadline = trio.current_time() + timeout
        while trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                return await self.session.websocket.receive()
            late = trio.current_time() - deadline
            deadline = max(deadline, self.session.last_message + timeout)
            if late > CATCH_UP:  # the process stood still, and what came meanwhile may lie unread
                deadline = max(deadline, trio.current_time() + CATCH_UP)
        raise inactivity(timeout)
