"""Hundreds of events of one kind are one line a second."""

import structlog
import trio

from ssasr.telemetry.bursts import Bursts


def lines(logs):
    return [(e["event"], e["cause"], e["count"]) for e in logs if e["log_level"] != "debug"]


async def test_an_event_by_itself_is_logged_at_once(autojump_clock):
    bursts = Bursts()
    with structlog.testing.capture_logs() as logs:
        for cause in ("lost", "silent"):
            bursts.warning("engine lost", cause, session="an-id")
    assert lines(logs) == [("engine lost", "lost", 1), ("engine lost", "silent", 1)]
    assert {entry["session"] for entry in logs} == {"an-id"}


async def test_hundreds_are_one_line_a_second(autojump_clock, nursery):
    bursts = Bursts()
    nursery.start_soon(bursts.run)
    with structlog.testing.capture_logs() as logs:
        for number in range(282):
            bursts.warning("engine lost", "lost", session=number)
            await trio.sleep(0.01)
        await trio.sleep(5)
    shown = lines(logs)
    assert 3 <= len(shown) <= 5
    assert sum(count for *_, count in shown) == 282, "none is left out"
    each = [entry["session"] for entry in logs]
    assert set(each) == set(range(282)), "at level debug they are all there"


async def test_without_anybody_to_write_the_next_event_brings_the_number(autojump_clock):
    bursts = Bursts()
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            bursts.info("no engine yet", "lost")
        await trio.sleep(2)
        bursts.info("no engine yet", "lost")
    assert [count for *_, count in lines(logs)] == [1, 10]
