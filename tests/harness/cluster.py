"""Gateway, load balancer and engine replicas as real processes on the loopback, kept alive by a
supervisor as they are in a cluster: what ends is started again."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio
from attrs import define, field, frozen

from ssasr.bench.server_metrics import read_metrics
from tests.harness.name_server import NameServer
from tests.harness.nginx import Balancer, write_configuration
from tests.harness.nginx import find_nginx as nginx_binary
from tests.harness.processes import free_port
from tests.harness.proxy import Proxy

READY_DEADLINE = 60.0
STOP_DEADLINE = 15.0
RESTART_DELAY = 0.1
"""Seconds that the supervisor waits before it starts a process again."""
NAME = "streaming-asr-english"


@frozen
class ClusterConfig:
    """``through_proxy``: a relay that misbehaves on request, between gateway and nginx.
    ``full_disk``: what the processes log goes to a device that is full. ``clock``: a file with the
    seconds by which the gateway's wall clock is wrong."""

    run_dir: Path
    engines: int = 3
    engine_options: Sequence[str] = ("--model", "english", "--engine-kind", "scripted")
    gateway_options: Sequence[str] = ()
    through_proxy: bool = False
    full_disk: bool = False
    clock: Path | None = None
    log_options: Sequence[str] = ("--log-level", "warning")


@define(eq=False)
class Supervised:
    """A process that is started again whenever it ends, until ``run`` is cancelled."""

    name: str
    argv: Sequence[str]
    log: Path
    ready: Callable[[], object]
    """Awaitable maker: returns when it serves."""
    process: trio.Process | None = None
    serving: bool = False
    """It has said that it is ready, and has not ended since."""
    starts: int = 0
    address: str = ""
    """Where it listens."""
    held_down: bool = False
    """It is not started again as long as that is so."""
    statuses: list[int] = field(factory=list)

    @property
    def pid(self) -> int | None:
        """None: it is not running now."""
        process = self.process
        return None if process is None or process.returncode is not None else process.pid

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started means ready for the first time."""
        try:
            while True:
                await self._start()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._await_ready, task_status)
                    self.statuses.append(await self.process.wait())
                    self.serving = False
                    nursery.cancel_scope.cancel()
                await trio.sleep(RESTART_DELAY)
                while self.held_down:  # noqa: ASYNC110  as a supervisor looks at its processes
                    await trio.sleep(RESTART_DELAY)
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()

    async def _await_ready(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.fail_after(READY_DEADLINE):
            await self.ready()
        self.serving = True
        if self.starts == 1:
            task_status.started()

    async def _start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SSASR_")}
        environment["OMP_NUM_THREADS"] = "1"
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                self.argv, stdout=log, stderr=log, env=environment
            )
        self.starts += 1

    async def _stop(self) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_DEADLINE):
            await process.wait()
            return
        process.kill()
        await process.wait()


@define(eq=False)
class Cluster:
    """A running cluster."""

    url: str
    port: int
    gateway: Supervised
    nginx: Supervised
    engines: list[Supervised]
    proxy: Proxy | None
    clock: Path | None

    async def wait_warm_replica(self) -> list[Supervised]:
        """The engines that serve, once there are two: one may go."""
        while len(warm := [engine for engine in self.engines if engine.serving]) < 2:
            await trio.sleep(0.02)
        return warm

    @property
    def processes(self) -> list[Supervised]:
        return [self.gateway, self.nginx, *self.engines]

    async def metrics(self) -> dict[str, float]:
        """The gateway's."""
        metrics = await read_metrics(self.url)
        assert metrics is not None, "the gateway has metrics"
        return metrics


async def _wait_status_200(url: str, headers: dict[str, str] | None = None) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url, headers=headers, timeout=2)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await trio.sleep(0.05)


def _ssasr(config: ClusterConfig, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "ssasr", *map(str, arguments), *config.log_options]


def _log(config: ClusterConfig, name: str) -> Path:
    return Path("/dev/full") if config.full_disk else config.run_dir / f"{name}.log"


@asynccontextmanager
async def run_cluster(config: ClusterConfig) -> AsyncIterator[Cluster]:
    """Ready to serve; all of it is stopped at the end."""
    port, engine_port, balancer_port = free_port(), free_port(), free_port()
    # Replicas behind one name share a port, so each has a loopback address of its own.
    network = f"127.{1 + os.getpid() % 250}.{1 + engine_port % 250}"
    addresses = [f"{network}.{10 + index}" for index in range(config.engines)]
    async with trio.open_nursery() as nursery:
        names = NameServer({NAME: list(addresses)})
        resolvers = await nursery.start(names.run)
        engines = [_engine(config, address, engine_port) for address in addresses]
        async with trio.open_nursery() as starting:
            for engine in engines:
                starting.start_soon(nursery.start, engine.run)
        nginx = _nginx(config, balancer_port, engine_port, resolvers)
        await nursery.start(nginx.run)
        proxy, endpoint_port = None, balancer_port
        if config.through_proxy:
            proxy = Proxy("127.0.0.1", balancer_port)
            endpoint_port = await nursery.start(proxy.run)
        gateway = _gateway(config, port, endpoint_port)
        await nursery.start(gateway.run)
        url = f"ws://127.0.0.1:{port}/v3/ws"
        yield Cluster(url, port, gateway, nginx, engines, proxy, config.clock)
        nursery.cancel_scope.cancel()


def _engine(config: ClusterConfig, address: str, port: int) -> Supervised:
    options = [*config.engine_options, "--host", address, "--port", port]
    url = f"http://{address}:{port}/ready"
    return Supervised(
        f"engine {address}",
        _ssasr(config, "engine", *options, "--drain-seconds", 10),
        _log(config, f"engine-{address}"),
        lambda: _wait_status_200(url),
        address=f"{address}:{port}",
    )


def _nginx(config: ClusterConfig, port: int, engine_port: int, resolvers: str) -> Supervised:
    balancer = Balancer(
        config.run_dir, f"127.0.0.1:{port}", english=f"{NAME}:{engine_port}",
        multilingual="127.0.0.1:1", resolvers=resolvers,
    )  # fmt: skip
    configuration = write_configuration(balancer)
    url, version = f"http://127.0.0.1:{port}/ready", {"X-Model-Version": "en-default"}
    return Supervised(
        "nginx",
        [nginx_binary(), "-p", str(config.run_dir), "-c", str(configuration)],
        _log(config, "nginx"),
        lambda: _wait_status_200(url, version),
    )


def _gateway(config: ClusterConfig, port: int, endpoint_port: int) -> Supervised:
    options = [
        "--host", "127.0.0.1", "--port", port, "--engines", "english",
        "--asr-endpoint", f"ws://127.0.0.1:{endpoint_port}", *config.gateway_options,
    ]  # fmt: skip
    argv = _ssasr(config, "gateway", *options)
    if config.clock is not None:
        config.clock.write_text("0")
        argv[2:3] = ["tests.harness.jumping_clock", str(config.clock)]
    url = f"http://127.0.0.1:{port}/ready"
    return Supervised(
        "gateway",
        argv,
        _log(config, "gateway"),
        lambda: _wait_status_200(url),
        address=f"127.0.0.1:{port}",
    )
