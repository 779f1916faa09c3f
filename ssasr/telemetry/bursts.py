"""Events that come by the hundred when something goes wrong, as one line a second and cause: the
first of them at once, those of the second that follows together, with their ``count``. Each by
itself is logged at level ``debug``.
"""

from typing import Any

import trio
from attrs import define, field

from ssasr.telemetry.logs import get_logger

PERIOD = 1.0
"""Seconds."""

log = get_logger(__name__)


@define(eq=False)
class _Burst:
    level: str
    began: float
    count: int = 0
    """Since the last line."""
    last: dict[str, Any] = field(factory=dict)


@define(eq=False)
class Bursts:
    """``run`` writes what was counted; without it that comes with the next event of the kind."""

    _kinds: dict[tuple[str, str], _Burst] = field(factory=dict)
    _wake: trio.Event = field(factory=trio.Event)

    def info(self, event: str, cause: str, **fields: object) -> None:
        """``event`` and ``cause`` say what is counted together, so both are of closed sets;
        ``fields`` are of this one."""
        self._note("info", event, cause, fields)

    def warning(self, event: str, cause: str, **fields: object) -> None:
        self._note("warning", event, cause, fields)

    def _note(self, level: str, event: str, cause: str, fields: dict[str, Any]) -> None:
        now = trio.current_time()
        burst = self._kinds.get((event, cause))
        if burst is None:
            burst = self._kinds[event, cause] = _Burst(level, now - PERIOD)
        burst.count += 1
        burst.last = fields
        if now - burst.began >= PERIOD:
            self._write(event, cause, burst)
        else:
            log.debug(event, cause=cause, **fields)
            self._wake.set()

    def _write(self, event: str, cause: str, burst: _Burst) -> None:
        write = log.info if burst.level == "info" else log.warning
        write(event, cause=cause, count=burst.count, **burst.last)
        burst.began, burst.count = trio.current_time(), 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(PERIOD)
            for (event, cause), burst in self._kinds.items():
                if burst.count:
                    self._write(event, cause, burst)
