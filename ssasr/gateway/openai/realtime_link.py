"""OpenAI's side of one session, as a machine without I/O and without a clock.

Theory of operation. A session uses it in place of ``ClientLink``: ``receive`` makes events of what
the client sends, ``frames`` makes texts of what the session says. What the client is answered at
once (``session.updated``, ``input_audio_buffer.committed``, an ``error``) is an event too,
``Answered``.

An *item* is the audio from one commit to the next, and its transcript. With turn detection the
server commits: ``SpeechStarted`` opens the item, ``SpeechStopped`` closes it. A commit of the
client's is an endpoint that is forced and acknowledged: what is said until ``EndpointReached`` is
of its item. Audio is transcribed as it comes, so ``clear`` cannot unsend deltas; it drops all that
follows of the item. Every commit gets one ``completed``, if need be with an empty transcript.

A client's mistake is answered by ``error`` and changes nothing; the session goes on.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import Factory, define, field

from ssasr.gateway.openai.json_object import JsonObject, Refused
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime_events import EventWriter, Item, finals_of
from ssasr.gateway.openai.realtime_settings import FORMATS, RealtimeSettings
from ssasr.protocol.client_link import (
    AudioReceived,
    ConfigurationUpdated,
    EndpointForced,
    Event,
    check_size,
)
from ssasr.protocol.close_codes import CLOSE_CODES, AtFault, CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import SAMPLE_BYTES
from ssasr.protocol.messages import (
    Answered,
    EndpointReached,
    Error,
    SessionMessage,
    Silence,
    SpeechStarted,
    SpeechStopped,
    Turn,
)
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.speech_models import EngineKind

SHORTEST_COMMIT_MS = 100
LONGEST_PIECE = 1
"""Seconds of audio that go on at once."""
MOST_UNSENT = 4_096
"""Answers that wait for a client which does not read."""
NOT_HERE = "unsupported_event"
KNOWN_ELSEWHERE = frozenset(
    {
        "conversation.item.create", "conversation.item.delete", "conversation.item.retrieve",
        "conversation.item.truncate", "output_audio_buffer.clear", "response.cancel",
        "response.create",
    }
)  # fmt: skip
"""Events of conversations with a model, which transcribing has no use for."""


@define(eq=False)
class RealtimeLink:
    """``session_id``: ours; ``expires_at``: Unix seconds. ``engine`` is set once and for all by
    ``settle``, when the session begins."""

    session_id: str
    expires_at: int
    names: ModelNames
    settings: RealtimeSettings = field(factory=RealtimeSettings)
    engine: EngineKind | None = None
    _write: EventWriter = field(
        default=Factory(lambda self: EventWriter(self._short_id), takes_self=True), init=False
    )
    _items: int = 0
    _unsent: int = 0
    _fresh: int = 0
    """Bytes of audio since the last commit."""
    _open: Item | None = None
    _pending: deque[Item] = field(factory=deque)
    """Committed or cleared by the client, and not all said."""
    _last_item: str | None = None
    _silent_from: int | None = None
    """Where the silence began that has been reported to the client."""
    _ended: bool = False

    # -- before the session begins ---------------------------------------------------------------

    def created(self) -> str:
        """The first frame."""
        return self._write.event("session.created", session=self._session())

    def configure(self, frame: str | bytes) -> str | None:
        """The answer to a ``session.update``; None: it is something else, and the session has to
        begin. Raises ClientFault."""
        check_size(frame)
        message = None
        try:
            message = JsonObject.read(frame)
            if message.text("type") != "session.update":
                return None
            self._update(message)
        except Refused as refused:
            return self._write.error(refused, message)
        return self._write.event("session.updated", session=self._session())

    def settle(self) -> SessionParameters:
        """What the session begins with. Raises Refused."""
        self.engine = self.settings.transcription.engine(self.names)
        return self.settings.parameters(self.engine)

    # -- what the client sends ---------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> Sequence[Event]:
        """Raises ClientFault."""
        if self._ended:
            return []
        check_size(frame)
        message = None
        try:
            if isinstance(frame, bytes):
                raise Refused("Expected a text frame", "invalid_json")
            message = JsonObject.read(frame)
            kind = message.text("type") or ""
            handler = HANDLERS.get(kind)
            if handler is None:
                code = NOT_HERE if kind in KNOWN_ELSEWHERE else "invalid_event_type"
                raise Refused(f"Invalid event type: '{kind[:80]}'", code, "type")
            return handler(self, message)
        except Refused as refused:
            return [self._answer(self._write.error(refused, message))]

    def _answer(self, frame: str) -> Answered:
        self._unsent += 1
        if self._unsent > MOST_UNSENT:
            raise ClientFault(CloseCode.INVALID_INPUT, "Too many events without reading an answer")
        return Answered(frame)

    def _update(self, message: JsonObject) -> SessionParameters:
        session = message.inner("session")
        if session is None:
            raise message.refused("session", "an object")
        settings = self.settings.updated(session)
        if self.engine is not None and settings.format != self.settings.format:
            raise Refused(
                "The format cannot be changed once the session has begun",
                param="session.audio.input.format",
            )
        wanted = settings.transcription.engine(self.names)
        engine = self.engine or wanted
        if engine is EngineKind.ENGLISH and wanted is not engine:
            raise Refused(
                "The session has begun with English, and with an engine that knows no other",
                param="session.audio.input.transcription",
            )
        parameters = settings.parameters(engine)
        self.settings = settings
        return parameters

    def _receive_update(self, message: JsonObject) -> Sequence[Event]:
        parameters = self._update(message)
        answer = self._answer(self._write.event("session.updated", session=self._session()))
        return [ConfigurationUpdated(parameters), answer]

    def _receive_audio(self, message: JsonObject) -> Sequence[Event]:
        data = message.octets("audio")
        self._fresh += len(data)
        size = self._rate * LONGEST_PIECE
        return [AudioReceived(data[at : at + size]) for at in range(0, len(data), size)]

    def _receive_commit(self, _: JsonObject) -> Sequence[Event]:
        milliseconds = self._fresh * 1_000 / self._rate
        if milliseconds < SHORTEST_COMMIT_MS:
            raise Refused(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{SHORTEST_COMMIT_MS}ms of audio, but buffer only has {milliseconds:.2f}ms.",
                "input_audio_buffer_commit_empty",
            )
        item = self._close_open()
        return [self._answer(self._commit(item)), EndpointForced(acknowledged=True)]

    def _receive_clear(self, _: JsonObject) -> Sequence[Event]:
        answer = self._answer(self._write.event("input_audio_buffer.cleared"))
        if not self._fresh:
            return [answer]
        self._close_open().discarded = True
        return [answer, EndpointForced(acknowledged=True)]

    @property
    def _rate(self) -> int:
        """Bytes a second."""
        encoding, rate = FORMATS[self.settings.format]
        return rate * SAMPLE_BYTES[encoding]

    def _close_open(self) -> Item:
        """The client ends what it has sent so far."""
        item = self._open or self._new_item()
        item.seconds = self._fresh / self._rate
        self._open, self._fresh = None, 0
        self._pending.append(item)
        return item

    # -- what the session says ---------------------------------------------------------------------

    def frames(self, message: SessionMessage) -> Sequence[str]:
        match message:
            case Turn():
                return self._turn(message)
            case Answered(frame):
                self._unsent -= 1
                return (frame,)
            case SpeechStarted(timestamp):
                return self._speech_started(timestamp)
            case SpeechStopped(timestamp):
                return self._speech_stopped(timestamp)
            case Silence(start, end):
                return self._silent(start, end)
            case EndpointReached():
                item = self._pending.popleft()
                return () if item.discarded else (self._write.completed(item, self.settings),)
            case Error():
                return self._last_words(message)
            case _:  # there is nothing like it here
                return ()

    def refusal(self, fault: ClientFault) -> Sequence[str]:
        return self._last_words(Error(error=fault.text, error_code=int(fault.code)))

    def _speech_started(self, at: int) -> Sequence[str]:
        item = self._current()
        if item.discarded:
            return ()
        item.started_ms = at
        detection = self.settings.detection
        padding = 0 if detection is None else detection.prefix_padding_ms
        start = max(at - padding, 0)
        kind = "input_audio_buffer.speech_started"
        return (self._write.event(kind, item_id=item.id, audio_start_ms=start),)

    def _speech_stopped(self, at: int) -> Sequence[str]:
        item = self._current()
        said: list[str] = []
        if item.started_ms is not None:
            kind = "input_audio_buffer.speech_stopped"
            said.append(self._write.event(kind, item_id=item.id, audio_end_ms=at))
            item.seconds = item.seconds or (at - item.started_ms) / 1_000
            item.started_ms = None
        if item is self._open:  # nothing of it is still to come
            self._open = None
            said += [self._commit(item), self._write.completed(item, self.settings)]
        return said

    def _silent(self, start: int, end: int) -> Sequence[str]:
        """Silence of a length that the client wants to know of is an item of its own."""
        detection = self.settings.detection
        longest = None if detection is None else detection.idle_timeout_ms
        if longest is None or end - start < longest or start == self._silent_from:
            return ()
        if self._pending:  # what the client has committed comes first
            return ()
        self._silent_from = start
        item, self._open = self._open or self._new_item(), None
        item.seconds = (end - start) / 1_000
        kind = "input_audio_buffer.timeout_triggered"
        over = self._write.event(kind, item_id=item.id, audio_start_ms=start, audio_end_ms=end)
        return [over, self._commit(item), self._write.completed(item, self.settings)]

    def _turn(self, turn: Turn) -> Sequence[str]:
        item = self._current()
        if item.discarded:
            return ()
        text = turn.transcript
        said: list[str] = []
        if len(text) > len(item.sent) and text.startswith(item.sent):
            said.append(self._write.delta(item, text[len(item.sent) :], turn, self.settings))
            item.sent, item.sent_words = text, finals_of(turn)
        if turn.end_of_turn:
            item.parts.append(text)
            item.sent, item.sent_words = "", 0
            item.language = turn.language_code or item.language
            if self.settings.include:
                item.words += turn.words
            if self.settings.transcription.diarizes:
                said += self._write.segments(item, turn)
        return said

    def _commit(self, item: Item) -> str:
        previous, self._last_item = self._last_item, item.id
        self._fresh = 0
        kind = "input_audio_buffer.committed"
        return self._write.event(kind, item_id=item.id, previous_item_id=previous)

    def _last_words(self, error: Error) -> Sequence[str]:
        """What was committed will have no transcript."""
        self._ended = True
        ours = CLOSE_CODES[CloseCode(error.error_code)].at_fault is AtFault.SERVER
        about = {
            "type": "server_error" if ours else "invalid_request_error",
            "code": str(error.error_code),
            "message": error.error,
            "param": None,
        }
        failed = [
            self._write.transcription("failed", item, error=about)
            for item in self._pending
            if not item.discarded
        ]
        self._pending.clear()
        return [*failed, self._write.event("error", error={**about, "event_id": None})]

    # -- parts -------------------------------------------------------------------------------------

    def _current(self) -> Item:
        """What is being transcribed."""
        if self._pending:
            return self._pending[0]
        if self._open is None:
            self._open = self._new_item()
        return self._open

    def _new_item(self) -> Item:
        self._items += 1
        return Item(f"item_{self._short_id}_{self._items}")

    @property
    def _short_id(self) -> str:
        return self.session_id.replace("-", "")

    def _session(self) -> dict[str, Any]:
        named = {"id": f"sess_{self._short_id}", "expires_at": self.expires_at}
        return self.settings.shown() | named


HANDLERS: dict[str, Callable[[RealtimeLink, JsonObject], Sequence[Event]]] = {
    "session.update": RealtimeLink._receive_update,
    "input_audio_buffer.append": RealtimeLink._receive_audio,
    "input_audio_buffer.commit": RealtimeLink._receive_commit,
    "input_audio_buffer.clear": RealtimeLink._receive_clear,
}
