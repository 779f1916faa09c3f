"""N real-time clients while something is done to the server. Their words are held against those of
the same audio without it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random

import trio
from attrs import frozen

from ssasr.bench.faults import Damage, Fault, Pauses, codes, compare, inject, parse_schedule, pauses
from ssasr.bench.player import Player, StreamLog, Target, play_all
from ssasr.bench.processes import programs_with
from ssasr.bench.recordings import Recording, Track, make_track
from ssasr.bench.run import BenchConfig
from ssasr.client.connection import session_url
from ssasr.errors import SsasrError

TRACKS = 4
"""Different tracks; the clients share them, so that the run without faults is a short one."""
SPREAD = 2.0
"""Seconds in which the clients begin."""
SIGNALS = {"kill", "term", "stop", "slow"}
"""What can be done to any process; the other kinds need a cluster of one's own."""
AFTER = 10.0
"""Seconds that the clients speak beyond the last fault, so that its consequences are seen."""

Done = list[tuple[float, Fault]]
"""Faults with the time at which each was done."""
FaultAction = Callable[[Done], Awaitable[None]]


@frozen(eq=False)
class FaultOutcome:
    """``faults``: how many of each kind were done."""

    streams: int
    faults: Mapping[str, int]
    damage: Damage
    pauses: Pauses
    codes: Mapping[str, int]

    @property
    def harmless(self) -> bool:
        """Whether every word came as it would have and every session ended well."""
        damage = self.damage
        untouched = not (damage.lost or damage.duplicated or damage.changed)
        return untouched and set(self.codes) == {"1000"}


async def run_with_faults(
    url: str, key: str, tracks: Sequence[Track], streams: int, seed: int, do_faults: FaultAction
) -> FaultOutcome:
    """The tracks once without faults, as fast as they are taken; then all clients in real time,
    with ``do_faults`` beside them. Raises SsasrError if the run without faults fails."""
    references = [StreamLog(track) for track in tracks]
    async with trio.open_nursery() as nursery:
        for log in references:
            nursery.start_soon(Player(Target(url, key, real_time=False), log).play)
    bad = [log.problem or log.code for log in references if log.code != 1000]
    if bad:
        raise SsasrError(f"the run without faults failed: {bad[0]}")
    done: Done = []
    played = [tracks[index % len(tracks)] for index in range(streams)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_faults, done)
        logs = await play_all(Target(url, key), played, spread=SPREAD, random=Random(seed))
        nursery.cancel_scope.cancel()
    by_tape = {id(log.track): log for log in references}
    kinds: dict[str, int] = {}
    for _, fault in done:
        kinds[fault.kind] = kinds.get(fault.kind, 0) + 1
    damage = compare(logs, lambda log: by_tape[id(log.track)])
    return FaultOutcome(streams, kinds, damage, pauses(logs, done), dict(codes(logs)))


def parse_signals(text: str, seed: int) -> list[Fault]:
    """A schedule of what can be done to any process. Raises ValueError."""
    faults = parse_schedule(text, Random(seed))
    for fault in faults:
        if fault.kind not in SIGNALS:
            raise ValueError(f"{fault.kind!r} is not one of {', '.join(sorted(SIGNALS))}")
    return faults


async def bench_with_faults(config: BenchConfig, recordings: Sequence[Recording]) -> FaultOutcome:
    """``config.faults`` on processes of this machine. Raises SsasrError if there are none."""
    if not programs_with(config.fault_target):
        raise SsasrError(f"no program here has {config.fault_target!r} in its command line")
    random = Random(config.seed)
    seconds = max(config.seconds, config.faults[-1].at + AFTER)
    tracks = [
        make_track(recordings, seconds, config.message_seconds, random)
        for _ in range(min(TRACKS, config.streams))
    ]

    async def do_faults(done: Done) -> None:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for fault in config.faults:
                await trio.sleep_until(start + fault.at)
                if there := programs_with(config.fault_target):
                    done.append((trio.current_time(), fault))
                    nursery.start_soon(inject, random.choice(there), fault)

    url = session_url(config.endpoint, config.parameters)
    return await run_with_faults(url, config.key, tracks, config.streams, config.seed, do_faults)
