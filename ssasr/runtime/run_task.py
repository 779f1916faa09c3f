"""Objects of which each trio run has one, created on first use."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio


class Running(Protocol):
    async def run(self) -> None: ...


T = TypeVar("T", bound=Running)


def of_this_run(variable: trio.lowlevel.RunVar[T], make: Callable[[], T]) -> T:
    """The object of this trio run. A system task runs its ``run`` until the trio run ends."""
    try:
        return variable.get()
    except LookupError:
        made = make()
        variable.set(made)
        trio.lowlevel.spawn_system_task(made.run)
        return made
