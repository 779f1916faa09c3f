"""The real programs as child processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

from attrs import define, field

START_DEADLINE = 60.0


def ssasr(*arguments, **environment):
    """The command, once, with nothing of this environment."""
    return subprocess.run(
        [sys.executable, "-m", "ssasr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"} | environment,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@define(eq=False)
class Program:
    """``ssasr`` with arguments; its stderr is kept."""

    arguments: list
    environment: dict = field(factory=dict)
    process: subprocess.Popen = field(init=False)
    _lines: list = field(factory=list)
    _reader: threading.Thread = field(init=False)

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SSASR_")}
        for name in ("SSASR_CACHE", "SSASR_MODELS_DIR"):
            if name in os.environ:
                environment[name] = os.environ[name]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssasr", *map(str, self.arguments)],
            env=environment | self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self):
        with self.process.stderr as stream:
            self._lines.extend(stream)

    @property
    def stderr(self):
        return "".join(self._lines)

    def wait_ready(self, port, path="/ready"):
        deadline = monotonic() + START_DEADLINE
        while monotonic() < deadline:
            assert self.process.poll() is None, self.stderr
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                    return
            except (URLError, OSError):
                sleep(0.05)
        raise AssertionError(f"not ready after {START_DEADLINE} s: {self.stderr}")

    def wait(self, deadline=20.0):
        """The exit status, after everything it said has been read."""
        status = self.process.wait(deadline)
        self._reader.join(5)
        return status

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()


@contextmanager
def halted(process):
    """SIGSTOP for the duration of the block: its sockets stay open, and nobody answers."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def running(command, *arguments, port=None, ready=True, **environment):
    """``ssasr COMMAND`` on a port, ready unless asked otherwise; yields the program and the
    port."""
    port = port or free_port()
    program = Program(
        [command, "--host", "127.0.0.1", "--port", port, *arguments], environment
    ).start()
    try:
        program.wait_ready(port, "/ready" if ready else "/health")
        yield program, port
    finally:
        program.process.kill()
        program.wait()


def server(*arguments, **environment):
    """``ssasr serve`` on a free port, ready."""
    return running("serve", *arguments, **environment)
