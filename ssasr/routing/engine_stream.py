"""What a session needs of an engine, whatever carries the stream."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ssasr.errors import EngineLost
from ssasr.protocol.recognition import FromEngine, Open, Opened, ToEngine
from ssasr.protocol.stream_position import StreamPosition
from ssasr.runtime.handoff import Sink


class EngineSilent(EngineLost):
    """The engine's connection stayed open, but it did not answer."""


class EngineStream(Protocol):
    """An open stream: an outlet of what is said and a source of the answers. One task sends, one
    receives."""

    @property
    def opened(self) -> Opened: ...

    @property
    def position(self) -> StreamPosition:
        """As of what was sent, and of the answers that have been received."""

    @property
    def clear(self) -> bool: ...

    def offer(self, message: ToEngine) -> None: ...

    async def send(self, message: ToEngine) -> None:
        """Raises EngineLost."""

    async def receive(self) -> FromEngine:
        """Raises EngineLost."""

    def deliver_to(self, sink: Sink[FromEngine]) -> None: ...


class Engines(Protocol):
    """The engines a gateway can reach, by model version (``routing.models``)."""

    def open_stream(
        self, model_version: str, opening: Open
    ) -> AbstractAsyncContextManager[EngineStream]:
        """Raises EngineBusy, EngineUnavailable; EngineLost if it broke off while opening."""

    def answers(self, model_version: str) -> bool:
        """Whether an engine of that version can take a session now, as far as is known."""

    def is_ready(self) -> bool:
        """Every model this gateway offers can take a session now."""
