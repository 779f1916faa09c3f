"""What an audio message costs a gateway that is really loaded, and what it adds to the latency.

    python -m benchmarks.gateway_load [--streams 320] [--seconds 20] [--json FILE] [--label TEXT]
        [--encoding pcm_s16le] [--rate 16000] [--direct] [--source CHECKOUT]

The scripted engine costs more than the gateway itself, so one machine cannot load a gateway with
it. Here clients and engine are one plain loop over sockets: every client sends 100 ms of audio
ten times a second, at a moment of its own, through the gateway and nginx (``--direct``: without);
the engine answers each with an update by the clock of the audio: four seconds with three words a
second, 1.6 s of silence, a final. ``up``: from a client's send to the engine's receipt of the same
audio; ``down``: from the engine's send of new words to the client's receipt of their Turn.
``--source``: the gateway of another checkout with the same engine link, to compare two in one
sitting. The gateway has a core to itself, and the loop and nginx have the others. ``rig_late``: how
late the loop itself sends, ``stolen_cores``: what the host of a virtual machine took meanwhile;
latencies are only as good as those.
"""

import argparse
import functools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import deque
from hashlib import sha1
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.conditions import publish
from benchmarks.gateway_speed import calibrate
from ssasr.bench.frames import BINARY, encode_frame, handshake
from ssasr.bench.processes import usage
from ssasr.bench.report import machine
from ssasr.net.frames import FrameReader, Ping, encode_message, encode_pong
from ssasr.protocol.engine_link import SUBPROTOCOL, EngineLink, Role
from ssasr.protocol.recognition import (
    VAD_FRAME,
    Audio,
    Final,
    Finalize,
    Open,
    Opened,
    Update,
    Word,
)
from tests.harness.nginx import Balancer, find_nginx, write_configuration
from tests.harness.processes import Program, free_port

CHUNK = 1_600
SPEECH, PERIOD = 64_000, 89_600
WORD = 5_333
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = "self-hosted"


class Peer:
    """One end of a connection in the loop."""

    def __init__(self, rig, connection):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rig, self.socket = rig, connection
        rig.add(connection, self.readable)

    def hear(self, data):
        raise NotImplementedError

    def readable(self):
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return
        if data:
            self.hear(data)
        else:
            self.close()

    def close(self):
        self.rig.remove(self.socket)
        self.socket.close()


class Engine(Peer):
    """One stream, or one question whether we are ready."""

    head, link, words, position, received = b"", None, (), 0, 0

    def hear(self, data):
        if self.link is not None:
            for event in self.cutter.feed(data):
                if isinstance(event, str | bytes):
                    self.obey(self.link.receive(event))
                elif isinstance(event, Ping):
                    self.socket.send(encode_pong(event.payload, None))
            return
        self.head += data
        if b"\r\n\r\n" in self.head:
            self.answer(self.head.decode("latin-1").split("\r\n"))

    def answer(self, lines):
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if "upgrade" not in fields.get("connection", ""):
            self.socket.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.close()
            return
        key = next(line.split(": ")[1] for line in lines if "websocket-key" in line.lower())
        accept = b64encode(sha1(key.encode() + GUID).digest()).decode()
        self.socket.send(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )
        self.link, self.cutter = EngineLink(Role.ENGINE), FrameReader(masked=True, limit=1 << 20)

    def say(self, message):
        self.socket.send(encode_message(self.link.send(message), None))

    def obey(self, message):
        match message:
            case Open(session):
                self.session, self.segment, self.start = session, 0, 0
                self.say(Opened("canned", CHUNK))
            case Audio(start, pcm):
                self.received = start + len(pcm) // 2
                self.rig.arrived(self.session, self.received)
                self.step()
            case Finalize(segment, at):
                words = words_between(self.start, at, None)
                if words:
                    self.rig.told(self.session)
                self.say(Final(segment, at, words, 0.9))
                self.segment, self.start, self.position, self.words = segment + 1, at, at, ()
                self.step()

    def step(self):
        self.position = max(self.position, self.start)
        while self.position + CHUNK <= self.received:
            self.position += CHUNK
            speech = speech_between(self.start, self.position - CHUNK, self.position)
            words = words_between(self.start, self.position, self.position)
            if words != self.words:
                self.rig.told(self.session)
                self.words = words
            self.say(Update(self.segment, self.position, speech, words, self.position, 0.9))


def make_message(encoding, rate):
    """100 ms of faint noise as one frame."""
    noise = (np.random.default_rng(1).normal(0, 50, rate // 10)).astype("<i2")
    if encoding == "opus":
        import av

        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate, codec.layout, codec.format = 48_000, "mono", "s16"
        codec.options = {"frame_duration": "100"}
        codec.open()
        sound = av.AudioFrame.from_ndarray(noise[None, :].astype(np.int16), "s16", "mono")
        sound.sample_rate = 48_000
        return encode_frame(BINARY, bytes(codec.encode(sound)[0]))
    if encoding == "pcm_mulaw":
        return encode_frame(BINARY, (noise & 0x7F).astype(np.uint8).tobytes())
    return encode_frame(BINARY, noise.tobytes())


@functools.cache
def speech_between(start, before, now):
    """Of the frames that are complete now and were not before."""
    frames = range((before - start) // VAD_FRAME, (now - start) // VAD_FRAME)
    return tuple(0.97 if (start + i * VAD_FRAME) % PERIOD < SPEECH else 0.02 for i in frames)


@functools.cache
def words_between(start, end, heard):
    """Words that begin in the stretch; ``heard``: those that end later are not final, None: all
    are."""
    words, at = [], -(-start // WORD) * WORD
    while at < end:
        if at % PERIOD < SPEECH:
            last = at + 4_000
            words.append(Word(f"word{at % 97}", at, last, 0.9, heard is None or last <= heard))
        at += WORD
    return tuple(words)


class Client(Peer):
    """Speaks zeros; what is said is the engine's affair."""

    session, sent = None, 0

    def __init__(self, rig, port, query, message):
        self.message = message
        connection = socket.create_connection(("127.0.0.1", port))
        request = handshake(
            f"127.0.0.1:{port}", f"/v3/ws?{query}", os.urandom(16), {"Authorization": KEY}
        )
        connection.sendall(request)
        self.head, self.reader = b"", FrameReader(masked=False, limit=1 << 20)
        super().__init__(rig, connection)

    def hear(self, data):
        if self.head is not None:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            data, self.head = self.head.split(b"\r\n\r\n", 1)[1], None
        for event in self.reader.feed(data):
            if not isinstance(event, str):
                continue
            if self.session is None:
                self.session = json.loads(event)["id"]
                self.rig.begun(self)
            elif event.endswith('"type":"Turn"}'):
                self.rig.seen(self.session)

    def speak(self):
        self.sent += CHUNK
        self.rig.spoke(self.session, self.sent)
        self.socket.send(self.message)


class Rig:
    """The loop, and what it notes."""

    def __init__(self, random):
        self.epoll, self.readers, self.random = select.epoll(), {}, random
        self.clients, self.spoken, self.news = [], {}, {}
        self.up, self.down, self.late = [], [], []

    def add(self, connection, readable):
        self.readers[connection.fileno()] = readable
        self.epoll.register(connection.fileno(), select.EPOLLIN)

    def remove(self, connection):
        self.epoll.unregister(connection.fileno())
        del self.readers[connection.fileno()]

    def listen(self):
        server = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        server.setblocking(False)
        self.add(server, lambda: Engine(self, server.accept()[0]))
        return server.getsockname()[1]

    def begun(self, client):
        self.spoken[client.session], self.news[client.session] = deque(), deque()
        self.clients.append(client)

    def spoke(self, session, position):
        self.spoken[session].append((position, time.perf_counter()))

    def arrived(self, session, position):
        """A resampler keeps the last moments back for the next message."""
        spoken = self.spoken[session]
        while spoken and spoken[0][0] <= position + CHUNK // 2:
            self.up.append(time.perf_counter() - spoken.popleft()[1])

    def told(self, session):
        self.news[session].append(time.perf_counter())

    def seen(self, session):
        if self.news[session]:
            self.down.append(time.perf_counter() - self.news[session].popleft())

    def turn(self, timeout):
        for fileno, _ in self.epoll.poll(timeout):
            if fileno in self.readers:
                self.readers[fileno]()

    def until(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.turn(0.02)

    def speak(self, seconds):
        """Every client ten times a second, evenly spread."""
        now = time.monotonic()
        order = deque(
            sorted((now + self.random.random() / 10, i) for i in range(len(self.clients)))
        )
        end, sent = now + seconds, 0
        while time.monotonic() < end:
            due, index = order[0]
            self.turn(max(due - time.monotonic(), 0))
            while order[0][0] <= time.monotonic():
                due, index = order.popleft()
                self.late.append(time.monotonic() - due)
                self.clients[index].speak()
                order.append((due + 0.1, index))
                sent += 1
        return sent


def spread(values):
    """In milliseconds."""
    values = sorted(values)
    of = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: round(values[int(len(values) * share)] * 1e3, 2) for name, share in of.items()}


def stolen():
    """CPU seconds that the host of a virtual machine has given to others, of all cores."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def keep_apart():
    """Leave the first core to the gateway; the core."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or {first})
    return first


def measure(given, rig, gateway, port):
    empty = usage(gateway.process.pid)
    rate = 48_000 if given.encoding == "opus" else given.rate
    message = make_message(given.encoding, rate)
    query = f"encoding={given.encoding}&sample_rate={rate}"
    for count in range(1, given.streams + 1):
        Client(rig, port, query, message)
        rig.until(lambda count=count: len(rig.clients) == count, 10)
    rig.speak(3)
    for noted in (rig.up, rig.down, rig.late):
        noted.clear()
    before, started, mine = usage(gateway.process.pid), time.monotonic(), time.process_time()
    theirs = stolen()
    sent = rig.speak(given.seconds)
    theirs = stolen() - theirs
    rig_share = (time.process_time() - mine) / (time.monotonic() - started)
    rig.until(lambda: not any(rig.spoken.values()), 5)
    after = usage(gateway.process.pid)
    cpu = after.cpu_seconds - before.cpu_seconds
    return {
        "streams": len(rig.clients),
        "encoding": f"{given.encoding} {rate}",
        "gateway_us_per_message": round(cpu / sent * 1e6, 1),
        "gateway_cores": round(cpu / given.seconds, 3),
        "sessions_per_core": round(len(rig.clients) * given.seconds / cpu),
        "messages": sent,
        "turn_messages_per_second": round(len(rig.down) / given.seconds / len(rig.clients), 2),
        "up_ms": spread(rig.up),
        "down_ms": spread(rig.down),
        "rig_late_ms": spread(rig.late),
        "rig_cores": round(rig_share, 3),
        "stolen_cores": round(theirs / given.seconds, 3),
        "rss_per_session_kib": round((after.rss - empty.rss) / len(rig.clients) / 1024),
    }


def run(given, folder):
    core = keep_apart()
    rig = Rig(Random(1))
    engine, balancer, port = rig.listen(), free_port(), free_port()
    nginx = None
    if not given.direct:
        configuration = write_configuration(
            Balancer(folder, f"127.0.0.1:{balancer}", english=f"127.0.0.1:{engine}",
                     multilingual="127.0.0.1:1", resolvers="127.0.0.1:9")
        )  # fmt: skip
        command = [find_nginx(), "-p", str(folder), "-c", str(configuration)]
        nginx = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"ws://127.0.0.1:{engine if given.direct else balancer}"
    gateway = Program(
        ["gateway", "--host", "127.0.0.1", "--port", port, "--asr-endpoint", endpoint,
         "--engines", "english", "--max-sessions", 3_000, "--log-level", "warning"],
        {"PYTHONPATH": str(given.source), "PYTHONSAFEPATH": "1"},
    ).start()  # fmt: skip
    os.sched_setaffinity(gateway.process.pid, {core})
    try:
        rig.until(lambda: _answers(port), 20)
        return measure(given, rig, gateway, port)
    finally:
        gateway.process.kill()
        gateway.wait()
        if nginx is not None:
            nginx.terminate()
            nginx.wait()
        sys.stderr.write(gateway.stderr)


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--encoding", default="pcm_s16le")
    parser.add_argument("--rate", type=int, default=16_000)
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--label", default="")
    given = parser.parse_args()
    about, before = machine(), calibrate()
    with tempfile.TemporaryDirectory(prefix="ssasr-load-") as folder:
        found = run(given, Path(folder))
    calibration = [round(before * 1e6), round(calibrate() * 1e6)]
    command = " ".join(["python", *sys.argv])
    result = {"label": given.label, "command": command, **about, **found}
    publish(result | {"calibration_us": calibration}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
