"""A file that is worked on: a session without a connection of its own."""

import uuid

import trio
from attrs import define, field

from ssasr.gateway.auth.access import Grant
from ssasr.gateway.usage.records import UsageRecord
from ssasr.protocol.close_codes import END_CAUSES, EndCause


@define(eq=False)
class Job:
    """``started``: Unix seconds."""

    grant: Grant
    started: float
    id: str = field(factory=lambda: str(uuid.uuid4()))
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """What it runs in."""
    cause: EndCause = EndCause.INTERNAL
    """Why it has ended, or is to end."""
    model_version: str = ""
    audio_seconds: float = 0.0

    def wind_down(self, cause: EndCause) -> None:
        self.cause = cause
        self.scope.cancel()

    def record(self, ended: float) -> UsageRecord:
        return UsageRecord(
            session_id=self.id,
            started=self.started,
            ended=ended,
            audio_seconds=self.audio_seconds,
            model=self.model_version,
            close_code=int(END_CAUSES[self.cause]),
            key_id=self.grant.key_id,
        )
