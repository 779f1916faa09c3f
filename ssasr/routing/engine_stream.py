"""What a session uses of an engine, wherever the engine runs."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ssasr.errors import EngineLost
from ssasr.protocol.recognition import FromEngine, Open, Opened, Route, ToEngine
from ssasr.protocol.stream_position import StreamPosition
from ssasr.runtime.handoff import Outlet, Source


class EngineSilent(EngineLost):
    """The engine's connection stayed open, but it did not answer."""


class EngineStream(Source[FromEngine], Outlet[ToEngine], Protocol):
    """An open stream. One task sends, one receives; both raise EngineLost."""

    @property
    def opened(self) -> Opened: ...

    @property
    def route(self) -> Route: ...

    @property
    def position(self) -> StreamPosition:
        """Counts the messages sent and the answers received so far."""


class Engines(Protocol):
    """The engines a gateway can reach, by model version (``routing.models``)."""

    def open_stream(
        self, model_version: str, opening: Open
    ) -> AbstractAsyncContextManager[EngineStream]:
        """Raises EngineBusy, EngineUnavailable; EngineLost if it broke off while opening."""

    def answers(self, model_version: str) -> bool:
        """Whether, as far as is known, an engine of that version is ready."""

    def is_ready(self) -> bool:
        """Whether the engines that this gateway needs are ready."""
