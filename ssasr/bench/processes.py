"""CPU time and memory of the processes under load, from ``/proc`` (Linux only)."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

PROC = Path("/proc")
ESTABLISHED, LISTEN = "01", "0A"


@frozen
class Usage:
    """Of one process, up to now."""

    cpu_seconds: float
    """User and system, all threads."""
    rss: int
    """Bytes."""


def usage(pid: int) -> Usage | None:
    """None: it has gone."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(fields[21])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def name_of(pid: int) -> str:
    """The command's name and, for Python programs, what it runs."""
    words = _command_line(pid)
    if "-m" in words[:4]:
        words = words[words.index("-m") + 1 :]
    command = Path(words[0].split(":")[0] or "?").name
    second = words[1] if len(words) > 1 and words[1].isalpha() else ""
    return f"{command} {second}".strip()


def _command_line(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        text = "?"
    return text.split("\0")


def programs_with(text: str) -> list[int]:
    """Python programs, other than this one, with ``text`` in their command line; shells and the
    like, which may have started them, have it too and are left alone."""
    found = []
    for pid in sorted(int(folder.name) for folder in PROC.iterdir() if folder.name.isdigit()):
        words = _command_line(pid)
        python = Path(words[0]).name.startswith(("python", "ssasr"))
        if python and pid != os.getpid() and text in " ".join(words):
            found.append(pid)
    return found


def serving_url(url: str) -> list[int]:
    """``serving`` the port of ``url``; none if that is another machine's."""
    parts = urlsplit(url)
    if parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        return []
    return serving(parts.port or (443 if parts.scheme == "wss" else 80))


@frozen
class _Sockets:
    listening: Mapping[int, set[int]]
    """Port to the processes that listen on it."""
    connected: Mapping[int, set[int]]
    """Process to the loopback ports that it has connected to."""


def serving(port: int) -> list[int]:
    """The processes on this machine that listen on ``port``, and those that they are connected to
    over loopback: a gateway, its load balancer, the engines behind that."""
    sockets = _sockets()
    found: list[int] = []
    ports = [port]
    asked: set[int] = set()
    while ports:
        port = ports.pop()
        asked.add(port)
        for pid in sorted(sockets.listening.get(port, set()) - set(found) - {os.getpid()}):
            found.append(pid)
            ports += sockets.connected.get(pid, set()) - asked
    return found


def _sockets() -> _Sockets:
    owners = _owners()
    listening: dict[int, set[int]] = {}
    connected: dict[int, set[int]] = {}
    for table in ("tcp", "tcp6"):
        for line in _lines(PROC / "net" / table):
            fields = line.split()
            local, remote, state, inode = fields[1], fields[2], fields[3], fields[9]
            for pid in owners.get(inode, ()):
                if state == LISTEN:
                    listening.setdefault(_port(local), set()).add(pid)
                elif state == ESTABLISHED and _is_loopback(remote):
                    connected.setdefault(pid, set()).add(_port(remote))
    return _Sockets(listening, connected)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except OSError:
        return []


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _is_loopback(address: str) -> bool:
    """As the kernel writes it: little-endian; IPv4 in IPv6 ends in the IPv4 address."""
    host = address.rpartition(":")[0]
    return host.endswith("7F") or host == "0" * 24 + "01000000"


def _owners() -> dict[str, list[int]]:
    """Socket inode to processes, of those that we may look at."""
    owners: dict[str, list[int]] = {}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        for link in _links(folder / "fd"):
            if link.startswith("socket:["):
                owners.setdefault(link[8:-1], []).append(int(folder.name))
    return owners


def _links(folder: Path) -> Iterable[str]:
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                yield os.readlink(entry.path)
