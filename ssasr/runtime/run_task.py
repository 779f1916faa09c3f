"""Things of which a trio run has one, made when they are first asked for."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio


class Running(Protocol):
    async def run(self) -> None: ...


T = TypeVar("T", bound=Running)


def of_this_run(variable: trio.lowlevel.RunVar[T], make: Callable[[], T]) -> T:
    """The one of this trio run. A system task runs it for as long as the run lasts."""
    try:
        return variable.get()
    except LookupError:
        made = make()
        variable.set(made)
        trio.lowlevel.spawn_system_task(made.run)
        return made
