"""Real-time clients while faults are done to the server; their words are compared with those of the
same audio without faults."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random

import trio
from attrs import evolve, frozen

from ssasr.bench.damage import Damage, Pauses, codes, compare, pauses
from ssasr.bench.faults import Fault, inject
from ssasr.bench.player import Player, StreamLog, Target, play_all
from ssasr.bench.processes import programs_with
from ssasr.bench.recordings import Recording, Track, make_track
from ssasr.bench.run import BenchConfig, target_of
from ssasr.errors import SsasrError

TRACKS = 4
"""Different tracks; the clients share them, so that the run without faults is a short one."""
SPREAD = 2.0
"""Seconds in which the clients begin."""
AFTER = 10.0
"""Seconds that the clients speak beyond the last fault, so that its consequences are seen."""

Done = list[tuple[float, Fault]]
"""Faults with the time at which each was done."""
FaultAction = Callable[[Done], Awaitable[None]]


@frozen(eq=False)
class FaultOutcome:
    """``faults``: how many of each kind were done. ``late``: seconds by which the latest message of
    a client was sent late, through no fault of the server's; beyond a second or two the server is
    right to take it for silence, and to end turns for it."""

    streams: int
    faults: Mapping[str, int]
    damage: Damage
    pauses: Pauses
    codes: Mapping[str, int]
    late: float

    @property
    def harmless(self) -> bool:
        """Whether every word came as it would have, of the same speaker, and every session ended
        well."""
        damage = self.damage
        untouched = not (damage.lost or damage.duplicated or damage.changed or damage.relabelled)
        return untouched and set(self.codes) == {"1000"}


async def bench_with_faults(config: BenchConfig, recordings: Sequence[Recording]) -> FaultOutcome:
    """``config.faults`` on processes of this machine. Raises SsasrError if there are none."""
    if not programs_with(config.fault_target):
        raise SsasrError(f"no program here has {config.fault_target!r} in its command line")
    random = Random(config.seed)

    async def do_faults(done: Done) -> None:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for fault in config.faults:
                await trio.sleep_until(start + fault.at)
                if there := programs_with(config.fault_target):
                    done.append((trio.current_time(), fault))
                    nursery.start_soon(inject, random.choice(there), fault)

    seconds = max(config.seconds, config.faults[-1].at + AFTER)
    return await run_with_faults(evolve(config, seconds=seconds), recordings, do_faults)


async def run_with_faults(
    config: BenchConfig, recordings: Sequence[Recording], do_faults: FaultAction
) -> FaultOutcome:
    """The tracks once without faults, as fast as they are taken; then all clients in real time,
    with ``do_faults`` beside them. Raises SsasrError if the run without faults fails."""
    random = Random(config.seed)
    tracks = [
        make_track(recordings, config.seconds, config.message_seconds, random)
        for _ in range(min(TRACKS, config.streams))
    ]
    target = target_of(config)
    references = await _play_without_faults(target, tracks)
    played = [tracks[index % len(tracks)] for index in range(config.streams)]
    done: Done = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_faults, done)
        logs = await play_all(target, played, spread=SPREAD, random=random)
        nursery.cancel_scope.cancel()
    return FaultOutcome(
        streams=config.streams,
        faults=Counter(fault.kind for _, fault in done),
        damage=compare(logs, lambda log: references[id(log.track)]),
        pauses=pauses(logs, done),
        codes=codes(logs),
        late=max((late for log in logs for late in log.lateness), default=0.0),
    )


async def _play_without_faults(target: Target, tracks: Sequence[Track]) -> dict[int, StreamLog]:
    """The log of each track, by the track's ``id``. Raises SsasrError."""
    logs = [StreamLog(track) for track in tracks]
    async with trio.open_nursery() as nursery:
        for log in logs:
            nursery.start_soon(Player(evolve(target, real_time=False), log).play)
    bad = [log.problem or log.code for log in logs if log.code != 1000]
    if bad:
        raise SsasrError(f"the run without faults failed: {bad[0]}")
    return {id(log.track): log for log in logs}
