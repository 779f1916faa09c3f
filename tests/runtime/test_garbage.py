"""Nothing but ended sessions, or a long time, has the whole process looked through."""

import gc

import pytest
import trio

from ssasr.runtime.garbage import FEWEST, LONGEST_SECONDS, SessionCount, collect_when_due


class Cycle:
    """Only a collection can free it."""

    freed = 0

    def __init__(self):
        self.me = self

    def __del__(self):
        Cycle.freed += 1


@pytest.fixture
def old_cycle():
    """Garbage of a session that lived long."""
    Cycle.freed = 0
    cycle = Cycle()
    gc.collect()  # it is among the oldest now
    del cycle


@pytest.mark.parametrize(("running", "ended"), [(0, FEWEST), (200, 200)])
async def test_when_as_many_have_ended_as_run(old_cycle, autojump_clock, nursery, running, ended):
    counts = [SessionCount(running, 1_000)]
    before = gc.get_threshold()
    nursery.start_soon(collect_when_due, lambda: counts[-1])
    await trio.sleep(LONGEST_SECONDS / 4)
    counts.append(SessionCount(running, 1_000 + ended - 1))
    await trio.sleep(LONGEST_SECONDS / 4)
    assert Cycle.freed == 0
    counts.append(SessionCount(running, 1_000 + ended))
    await trio.sleep(LONGEST_SECONDS / 4)
    assert Cycle.freed == 1
    nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()
    assert gc.get_threshold() == before


async def test_when_a_long_time_has_passed(old_cycle, autojump_clock, nursery):
    nursery.start_soon(collect_when_due, lambda: SessionCount(300, 0))
    await trio.sleep(LONGEST_SECONDS - 1)
    assert Cycle.freed == 0
    await trio.sleep(LONGEST_SECONDS / 10)
    assert Cycle.freed == 1
