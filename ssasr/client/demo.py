"""``make demo``: start the all-in-one server, speak a bundled recording to it, show the words.

The server is a process of its own and the recording goes through the public protocol, in real time,
exactly as a client on another machine would send it.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

from rich.console import Console

from ssasr.client.transcribe import Request, transcribe
from ssasr.errors import SsasrError

READY_DEADLINE = 60.0
STOP_DEADLINE = 15.0
HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(port: int) -> Iterator[None]:
    """Raises SsasrError if the server does not become ready."""
    command = [
        sys.executable, "-m", "ssasr", "serve", "--engines", "english",
        "--host", HOST, "--port", str(port), "--log-level", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        wait_ready(process, port)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = monotonic() + READY_DEADLINE
    while monotonic() < deadline:
        if process.poll() is not None:
            raise SsasrError("the server did not start")
        try:
            with urlopen(f"http://{HOST}:{port}/ready", timeout=1):
                return
        except (URLError, OSError):
            sleep(0.1)
    raise SsasrError(f"the server was not ready within {READY_DEADLINE:.0f} s")


def main() -> int:
    console = Console(stderr=True)
    port = free_port()
    try:
        console.print("Starting the server …")
        with server(port), as_file(files("ssasr") / "data" / "en_jfk.flac") as recording:
            console.print("Speaking a recording to it, in real time (J. F. Kennedy, 1961):\n")
            request = Request(
                str(recording),
                f"ws://{HOST}:{port}/v3/ws",
                "self-hosted",
                "realtime",
                {"format_turns": "true"},
            )
            transcribe(request, as_json=False)
    except SsasrError as error:
        console.print(f"[red]demo failed:[/red] {error}")
        return 1
    console.print("\nThat is all. `make serve` keeps a server running on port 8080.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
