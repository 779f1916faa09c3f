"""What a message of the engine link costs, in microseconds of one core.

    python -m benchmarks.archive.engine_link

A typical session: a turn of 25 words, 20 of them final, three tentative ones that change with every
step, three speech frames a step; 100 ms of audio the other way. Best of five runs each.
"""

import platform
from time import process_time
from timeit import repeat

from ssasr.protocol.engine_link import EngineLink, Role
from ssasr.protocol.recognition import Audio, Open, Opened, StreamOptions, Update, Word

MESSAGES = 20_000


def words(step):
    final = tuple(Word(f"word{i}", i * 4_800, i * 4_800 + 4_000, 0.93, True) for i in range(20))
    tail = tuple(Word(f"t{step}{i}", 96_000, 97_000, 0.61) for i in range(3))
    return final + tail


def streaming():
    gateway, engine = EngineLink(Role.GATEWAY), EngineLink(Role.ENGINE)
    engine.receive(gateway.send(Open("session", StreamOptions())))
    gateway.receive(engine.send(Opened("model", 1_600)))
    return gateway, engine


def report(name, run):
    best = min(repeat(run, number=1, repeat=5, timer=process_time))
    print(f"{name:<28}{best / MESSAGES * 1e6:6.1f} µs")


def main():
    print(platform.python_version(), platform.processor() or platform.machine())
    pcm = bytes(3_200)
    gateway, engine = streaming()
    audio = [gateway.send(Audio(i * 1_600, pcm)) for i in range(MESSAGES)]
    for frame in audio:
        engine.receive(frame)
    finals = words(0)[:20]
    updates = [
        Update(0, i * 1_600, (0.97, 0.02, 0.5), finals + words(i)[20:], i * 1_600 - i % 2,
               0.31, "en", 0.99)
        for i in range(1, MESSAGES)
    ]  # fmt: skip

    def all_of(fresh, link, frames, verb):
        link = fresh()[link]
        say = getattr(link, verb)
        for frame in frames:
            say(frame)

    def ready():
        gateway, engine = streaming()
        gateway._sent = engine._sent = MESSAGES * 1_600
        return gateway, engine

    sender = ready()[1]
    frames = [sender.send(update) for update in updates]
    print(f"{sum(map(len, frames)) / len(frames):.0f} bytes an update")
    messages = [Audio(i * 1_600, pcm) for i in range(MESSAGES)]
    report("gateway: write audio", lambda: all_of(streaming, 0, messages, "send"))
    report("gateway: read an update", lambda: all_of(ready, 0, frames, "receive"))
    report("engine: read audio", lambda: all_of(streaming, 1, audio, "receive"))
    report("engine: write an update", lambda: all_of(ready, 1, updates, "send"))


if __name__ == "__main__":
    main()
