"""A real Prometheus reads a real stack: every panel of the dashboard shows something, and every
alert rule is about something that is there."""

import re

import pytest
import trio

from tests.docker.test_monitoring import alerts, panels
from tests.harness.clients import converse, speech_like
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.prometheus import run_prometheus, scrape_targets

pytestmark = [pytest.mark.nginx, pytest.mark.slow]

INTERVAL = 0.5
ELSEWHERE = re.compile(r"ssasr_gpu_\w+|ssasr_engine_(device_memory_bytes|unit_seconds)")
"""Of a GPU, or of an engine that measured its capacity; the scripted one has neither."""
SPEECH = speech_like(8.0, pause_every=2.0, pause=1.5)


async def wait_for_data(prometheus, expressions):
    """Those that still have none after a while."""
    missing = dict(expressions)
    with trio.move_on_after(60):
        while missing:
            for name, expression in list(missing.items()):
                if await prometheus.query(expression):
                    del missing[name]
            await trio.sleep(INTERVAL)
    return missing


def parts(expression: str) -> list[str]:
    """The series that an expression reads."""
    return re.findall(
        r"\b(?:ssasr_\w+|up)\b(?:\{[^}]*\})?", re.sub(r"by \([^)]*\)", "", expression)
    )


async def test_every_panel_shows_something_and_every_rule_reads_something(tmp_path):
    async with run_cluster(ClusterConfig(tmp_path, 1)) as cluster:
        async with run_prometheus(tmp_path, scrape_targets(cluster), INTERVAL) as prometheus:
            with trio.fail_after(60):
                await prometheus.wait_scraped("ssasr-gateway", 1)
                await prometheus.wait_scraped("ssasr-engine", 1)
            for _ in range(2):
                assert (await converse(cluster.url, SPEECH)).close_code == 1000
            here = [name for name, text in panels().items() if not ELSEWHERE.search(text)]
            shown = {name: panels()[name].replace("[5m]", "[10s]") for name in here}
            assert await wait_for_data(prometheus, shown) == {}
            read = {part for expression in alerts().values() for part in parts(expression)}
            read = {part: part for part in read if not ELSEWHERE.search(part)}
            assert await wait_for_data(prometheus, read) == {}
            rules = await prometheus.rules()
            assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(alerts(), "ok")
            assert await prometheus.firing() == {}
