"""What a wake-up costs on this machine, whatever the program: a process that waits, reads 3,200
bytes, writes 200 and does nothing else, on a core of its own.

    python -m benchmarks.archive.wake_cost [--seconds 3] [--json FILE] [--label TEXT]

The gateway does this twice for an audio message, for the client's audio and for the engine's
answer: twice the figure at twice the rate is what is left of a message without any work.
"""

import argparse
import os
import select
import socket
import sys
import time
from multiprocessing import Pipe, Process
from pathlib import Path

from benchmarks.conditions import publish
from ssasr.bench.report import machine

RATES = (500, 1_000, 2_000, 4_000, 6_400)


def echo(peer, pipe, core):
    """CPU seconds between two questions, and messages."""
    os.sched_setaffinity(0, {core})
    epoll = select.epoll()
    for each in (peer, pipe):
        epoll.register(each.fileno(), select.EPOLLIN)
    cpu, count = time.process_time(), 0
    while True:
        for fileno, _ in epoll.poll():
            if fileno == peer.fileno():
                os.write(fileno, os.read(fileno, 16_384)[:200])
                count += 1
            elif pipe.recv():
                pipe.send((time.process_time() - cpu, count))
                cpu, count = time.process_time(), 0
            else:
                return


def measure(rate, seconds, end, pipe):
    """Microseconds a message at ``rate`` messages a second."""
    pipe.send(True)
    pipe.recv()
    now = due = time.perf_counter()
    until = now + seconds
    while due < until:
        time.sleep(max(due - now, 0))
        end.send(bytes(3_200))
        end.recv(65_536)
        due += 1 / rate
        now = time.perf_counter()
    pipe.send(True)
    cpu, count = pipe.recv()
    return {"messages_per_second": round(count / seconds), "us_each": round(cpu / count * 1e6, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--label", default="")
    given = parser.parse_args()
    about = machine()
    first, *others = sorted(os.sched_getaffinity(0))
    listener = socket.create_server(("127.0.0.1", 0))
    end = socket.create_connection(listener.getsockname())
    mine, theirs = Pipe()
    process = Process(target=echo, args=(listener.accept()[0], theirs, first), daemon=True)
    process.start()
    os.sched_setaffinity(0, others or {first})
    rates = [measure(rate, given.seconds, end, mine) for rate in RATES]
    mine.send(False)
    process.join()
    command = " ".join(["python", *sys.argv])
    publish({"label": given.label, "command": command, **about, "wake_cost": rates}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
