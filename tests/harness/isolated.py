"""Servers in a network namespace of their own, as containers have one: names, addresses and ports
are those of the deployment, nothing outside is touched, and nothing gets out unseen.

``run_isolated`` is for tests; it starts this module under ``unshare``, which starts the services,
runs the commands one after the other, and prints a ``Report``.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cattrs
import httpx
import trio
from attrs import define, field, frozen

from tests.harness.name_server import NameServer
from tests.harness.namespace import (
    keep_service_ports,
    open_way_out,
    use_name_server,
    watch_way_out,
)

TOP = Path(__file__).parents[2]
NAME_SERVER = "127.0.0.11"
"""Where Docker's is."""
READY_DEADLINE = 60.0
STOP_DEADLINE = 15.0


@frozen
class Service:
    """One server process. ``ready``: URL that answers 200 when it can serve, asked in order of the
    plan before the next service starts; empty: not waited for."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    ready: str = ""


@frozen
class Plan:
    """``names``: what the name server knows."""

    names: dict[str, list[str]]
    services: list[Service]
    commands: list[list[str]]


@frozen
class Ran:
    argv: list[str]
    status: int
    output: str
    errors: str


@frozen
class Report:
    commands: list[Ran]
    leaving: list[str]
    """Where packets wanted to go."""
    questions: list[str]
    """Names that were asked for."""
    logs: dict[str, str]
    """What each service wrote, stdout and stderr."""
    statuses: dict[str, int]
    """How each service ended after SIGTERM."""


def can_isolate() -> bool:
    """Whether this machine lets us make namespaces (root in a container without limits, or user
    namespaces)."""
    made = subprocess.run([*_unshare(), "test", "-c", "/dev/net/tun"], capture_output=True)
    return made.returncode == 0


def run_isolated(plan: Plan, *, deadline: float = 110) -> Report:
    """Raises ``CalledProcessError`` with the text of what went wrong."""
    with tempfile.TemporaryDirectory(prefix="ssasr-isolated-") as folder:
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(cattrs.unstructure(plan)))
        done = subprocess.run(
            [*_unshare(), sys.executable, "-m", "tests.harness.isolated", str(path)],
            capture_output=True, text=True, cwd=TOP, timeout=deadline,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    return cattrs.structure(json.loads(done.stdout), Report)


def _unshare() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *own, "--net", "--mount", "--"]


@define(eq=False)
class Inside:
    """The part that runs in the namespace."""

    plan: Plan
    run_dir: Path
    running: dict[str, trio.Process] = field(factory=dict)

    async def run(self) -> Report:
        names = NameServer({name: list(at) for name, at in self.plan.names.items()})
        leaving: list[str] = []
        tun = open_way_out()
        use_name_server(self.run_dir, NAME_SERVER)
        keep_service_ports()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_way_out, tun, leaving)
            await nursery.start(names.run, NAME_SERVER, 53)
            try:
                for service in self.plan.services:
                    await self._start(service)
                commands = [await self._command(argv) for argv in self.plan.commands]
            finally:
                with trio.CancelScope(shield=True):
                    statuses = {name: await self._stop(name) for name in reversed(self.running)}
            nursery.cancel_scope.cancel()
        logs = {name: self._log(name).read_text() for name in self.running}
        return Report(commands, leaving, names.questions, logs, statuses)

    def _log(self, name: str) -> Path:
        return self.run_dir / f"{name}.log"

    async def _start(self, service: Service) -> None:
        with self._log(service.name).open("wb") as log:
            process = await trio.lowlevel.open_process(
                service.argv, env=service.environment, stdout=log, stderr=log
            )
        self.running[service.name] = process
        if service.ready:
            with trio.move_on_after(READY_DEADLINE):
                await self._wait_ready(service, process)
                return
            raise RuntimeError(
                f"{service.name} is not ready: {self._log(service.name).read_text()}"
            )

    async def _wait_ready(self, service: Service, process: trio.Process) -> None:
        async with httpx.AsyncClient() as client:
            while process.poll() is None:
                try:
                    if (await client.get(service.ready, timeout=2)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await trio.sleep(0.1)
        raise RuntimeError(f"{service.name} ended: {self._log(service.name).read_text()}")

    async def _command(self, argv: list[str]) -> Ran:
        done = await trio.run_process(
            argv, check=False, capture_stdout=True, capture_stderr=True
        )  # fmt: skip
        return Ran(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    async def _stop(self, name: str) -> int:
        process = self.running[name]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_DEADLINE):
            return await process.wait()
        process.kill()
        return await process.wait()


def main() -> None:
    path = Path(sys.argv[1])
    plan = cattrs.structure(json.loads(path.read_text()), Plan)
    report = trio.run(Inside(plan, path.parent).run)
    json.dump(cattrs.unstructure(report), sys.stdout)


if __name__ == "__main__":
    main()
