"""Garbage collection of a process with many sessions.

Left alone, Python looks through everything alive whenever a quarter more has gathered. With some
hundred sessions that takes 0.2 s, in which nobody is served, every few seconds, and it finds
nothing: what a session has made is in use until it ends. So the whole is looked through when enough
sessions have ended, and now and then. What is young is mostly audio that is kept for a while:
it is looked through when there is far more of it than that.
"""

import gc
from collections.abc import Callable

import trio
from attrs import frozen

LOOK_SECONDS = 10.0
LONGEST_SECONDS = 600.0
"""For what others than sessions leave: requests, connections that never became a session."""
FEWEST = 50
"""Ended sessions that are worth a look; each leaves about 0.3 MiB."""
YOUNG = 100_000
"""Objects more than there were; audio kept for 300 sessions comes and goes by 40,000."""
YOUNG_IN_STEPS = 10_000
"""The same beside a model, whose objects go with the next step."""
NEVER = 1_000_000_000


@frozen
class SessionCount:
    running: int
    ended: int
    """Since the process began."""


def spare_what_is_loaded() -> None:
    """For a process with a model, once it is loaded: none of it is ever looked through again."""
    gc.collect()
    gc.freeze()


def calm_collector() -> None:
    """For a process with nothing but an engine, once its model is loaded. Every step makes some
    objects for every stream and drops them soon after; with Python's own thresholds that is a
    collection for every hundred streams, and now and then one that goes through everything there
    is, the modules of torch included, while every stream waits (measured at 1,000 streams:
    100 ms)."""
    spare_what_is_loaded()
    gc.set_threshold(YOUNG_IN_STEPS, 20, 50)


def is_due(ended: int, running: int, seconds: float) -> bool:
    """``ended`` and ``seconds``: since the last time. What is left over is never more than what is
    in use."""
    return ended >= max(running, FEWEST) or seconds >= LONGEST_SECONDS


async def collect_when_due(count: Callable[[], SessionCount], young: int = YOUNG) -> None:
    """For ever; as long as this runs, nothing else looks through the whole. A process has one
    policy: this one wherever there are sessions, with ``YOUNG_IN_STEPS`` beside a model."""
    before = gc.get_threshold()
    gc.set_threshold(young, before[1], NEVER)
    ended, since = count().ended, trio.current_time()
    try:
        while True:
            await trio.sleep(LOOK_SECONDS)
            now, sessions = trio.current_time(), count()
            if is_due(sessions.ended - ended, sessions.running, now - since):
                gc.collect()
                ended, since = sessions.ended, now
    finally:
        gc.set_threshold(*before)
