"""Garbage collection in a process with many sessions.

By default Python makes a full collection whenever the number of objects has grown by a quarter.
With some hundred sessions that stops the process for 0.2 s every few seconds, and finds nothing,
because a session's objects are in use until it ends. Here a full collection is made when enough
sessions have ended, and now and then. Young objects are mostly audio that is kept for a while; they
are collected when there are far more of them than that explains.
"""

import gc
from collections.abc import Callable

import trio
from attrs import frozen

LOOK_SECONDS = 10.0
LONGEST_SECONDS = 600.0
"""For garbage that does not come from sessions: requests, connections that never became one."""
FEWEST = 50
"""Ended sessions that are worth a collection; each leaves about 0.3 MiB."""
YOUNG = 100_000
"""New objects before the young generation is collected. The audio kept for 300 sessions makes the
number vary by 40,000."""
YOUNG_IN_STEPS = 10_000
"""The same in a process with a model, whose objects live for one step."""
NEVER = 1_000_000_000


@frozen
class SessionCount:
    running: int
    ended: int
    """Since the process began."""


def freeze_loaded_objects() -> None:
    """Exclude all objects that exist now from later collections; call when a model is loaded."""
    gc.collect()
    gc.freeze()


def collect_rarely() -> None:
    """For an engine process, once its model is loaded. Every step makes some objects for each
    stream and drops them soon after. With Python's default thresholds that causes one collection
    for every hundred streams, and now and then a full one, torch's modules included, while all
    streams wait (measured at 1,000 streams: 100 ms)."""
    freeze_loaded_objects()
    gc.set_threshold(YOUNG_IN_STEPS, 20, 50)


def is_due(ended: int, running: int, seconds: float) -> bool:
    """Whether to make a full collection. ``ended``, ``seconds``: sessions and time since the last
    one. The garbage of ended sessions never exceeds what the running ones use."""
    return ended >= max(running, FEWEST) or seconds >= LONGEST_SECONDS


async def collect_when_due(count: Callable[[], SessionCount], young: int = YOUNG) -> None:
    """Make full collections when they are due, until cancelled; meanwhile Python makes none. Use in
    every process with sessions; with ``YOUNG_IN_STEPS`` if it has a model too."""
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
