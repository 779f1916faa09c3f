"""What a session needs of an engine, whatever carries the stream."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ssasr.errors import EngineLost
from ssasr.protocol.recognition import FromEngine, Open, Opened, ToEngine


class EngineSilent(EngineLost):
    """The engine's connection stayed open, but it did not answer."""


class AnswerSink(Protocol):
    """Takes answers without waiting, in whatever task has them."""

    def ready(self) -> bool: ...
    def take(self, answer: FromEngine) -> None: ...


class EngineStream(Protocol):
    """An open stream. One task sends, one task receives."""

    @property
    def opened(self) -> Opened: ...

    async def send(self, message: ToEngine) -> None:
        """Raises EngineLost."""

    def offer(self, message: ToEngine) -> bool:
        """Send without waiting; False: that cannot be done now, and ``send`` is to be used."""

    def deliver_to(self, sink: AnswerSink) -> None:
        """What ``receive`` waits for may go to ``sink`` instead whenever it is ready; a stream is
        free not to make use of it."""

    async def receive(self) -> FromEngine:
        """Raises EngineLost."""


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
