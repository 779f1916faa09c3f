"""Features that go on beside a session, without the session knowing what they are."""

from ssasr.protocol.messages import SessionMessage
from ssasr.runtime.handoff import Outlet


class Companion:
    """Sees each message before the client does, in the order in which a session's companions are
    listed. Each method may be left as it is here."""

    async def __call__(self, message: SessionMessage) -> SessionMessage | None:
        """What is sent instead; None: nothing."""
        return message

    async def run(self, messages: Outlet[SessionMessage]) -> None:
        """Cancelled at the session's end. Raises nothing; ``messages`` go to the client."""

    def ended(self) -> None:
        """The session is over, whatever the reason."""
