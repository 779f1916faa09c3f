"""How late the event loop is: what everybody in the process waits on top of their own work."""

from prometheus_client import Histogram
from trio import current_time

from ssasr.runtime.timers import Timer

PERIOD = 1.0
"""Seconds between two measurements."""


async def measure_loop_lag(histogram: Histogram) -> None:
    """Observe once a second, until cancelled, how many seconds late a task is woken."""

    def observe(second: float) -> float:
        histogram.observe(current_time() - second)
        return PERIOD

    await Timer(observe).run_until_over(PERIOD)
