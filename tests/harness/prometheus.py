"""A real Prometheus (Debian's package) as a child process, with the shipped alert rules."""

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import httpx
import trio
import yaml
from attrs import frozen

from tests.harness.cluster import Cluster
from tests.harness.processes import free_port

RULES = Path(__file__).parents[2] / "docker" / "monitoring" / "alerts.yaml"
READY_DEADLINE = 30.0


@frozen
class Prometheus:
    """A running one."""

    url: str

    async def _get(self, path: str, **query: str) -> Any:
        # Without TLS's context, which takes 55 ms of the caller's event loop each time.
        async with httpx.AsyncClient(verify=False) as client:
            answer = await client.get(f"{self.url}/api/v1/{path}", params=query, timeout=10)
        return answer.raise_for_status().json()["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that there are now, each with ``metric`` and ``value``."""
        return list((await self._get("query", query=expression))["result"])

    async def firing(self) -> dict[str, dict[str, str]]:
        """Alerts by name, with the labels of one of each."""
        alerts = (await self._get("alerts"))["alerts"]
        return {
            alert["labels"]["alertname"]: alert["labels"]
            for alert in alerts
            if alert["state"] == "firing"
        }

    async def rules(self) -> list[dict[str, Any]]:
        """As they were evaluated last."""
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def wait_scraped(self, job: str, count: int) -> None:
        """Until so many targets of a job have answered."""
        while len(await self.query(f'up{{job="{job}"}} == 1')) < count:
            await trio.sleep(0.2)


def scrape_targets(cluster: Cluster) -> dict[str, list[str]]:
    """host:port by job."""
    engines = [engine.address for engine in cluster.engines]
    return {"ssasr-gateway": [cluster.gateway.address], "ssasr-engine": engines}


@asynccontextmanager
async def run_prometheus(
    folder: Path,
    targets: Mapping[str, Sequence[str]],
    interval: float = 15.0,
    rules: Path = RULES,
) -> AsyncIterator[Prometheus]:
    """``targets``: host:port by job. ``interval``: seconds between scrapes, and between evaluations
    of the rules."""
    every = f"{round(interval * 1e3)}ms"
    jobs = [
        {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
        for job, addresses in targets.items()
    ]
    times = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    configuration = {"global": times, "rule_files": [str(rules)], "scrape_configs": jobs}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    url = f"http://127.0.0.1:{free_port()}"
    binary = shutil.which("prometheus")
    assert binary is not None, "the Debian package prometheus is needed"
    command = [
        binary, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn",
    ]  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, command, url)
        yield Prometheus(url)
        nursery.cancel_scope.cancel()


async def _run(command: list[str], url: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start, command)
        with trio.fail_after(READY_DEADLINE):
            async with httpx.AsyncClient() as client:
                while True:
                    try:
                        if (await client.get(f"{url}/-/ready", timeout=2)).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    await trio.sleep(0.1)
        task_status.started()


async def _start(command: list[str]) -> None:
    """Until cancelled, which ends it."""
    await trio.run_process(command, stdout=DEVNULL, stderr=DEVNULL)
