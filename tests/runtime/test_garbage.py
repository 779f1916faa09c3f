"""Nothing but ended sessions, or a long time, has the whole process looked through."""

import gc

import pytest
import trio
import trio.testing

from ssasr.runtime.garbage import (
    FEWEST,
    LONGEST_SECONDS,
    NEVER,
    YOUNG_IN_STEPS,
    SessionCount,
    collect_when_due,
)


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


async def test_beside_a_model_there_is_one_policy_too(nursery, autojump_clock):
    """Two used to set the thresholds one after the other, and the second won."""
    before = gc.get_threshold()
    nursery.start_soon(collect_when_due, lambda: SessionCount(0, 0), YOUNG_IN_STEPS)
    await trio.testing.wait_all_tasks_blocked()
    assert gc.get_threshold() == (YOUNG_IN_STEPS, before[1], NEVER)
    nursery.cancel_scope.cancel()
