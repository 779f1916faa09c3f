"""Faults on real processes: what they do to the words is nothing."""

import json
from random import Random

import pytest
import trio

from ssasr.bench.damage import compare, pauses
from ssasr.bench.faults import Fault, parse_schedule
from ssasr.bench.player import StreamLog
from ssasr.bench.recordings import Track
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.fault_run import bench_config, noise_recordings, run_cluster_faults


def log_of(*said, began=100.0):
    """``said``: (receipt, words of a turn that ends); a word is (text, start, end)."""
    log = StreamLog(Track([], (), None, 0.1), began=began)
    for order, (at, words) in enumerate(said):
        turn = {"type": "Turn", "turn_order": order, "end_of_turn": True}
        turn["words"] = [{"text": t, "start": a, "end": b} for t, a, b in words]
        log.arrivals.append((at, json.dumps(turn)))
    return log


A, B, C = ("a", 0, 300), ("b", 300, 600), ("c", 600, 900)


@pytest.mark.parametrize(
    ("got", "lost", "duplicated", "changed", "moved"),
    [
        ([A, B, C], 0, 0, 0, 0),
        ([A, C], 1, 0, 0, 0),
        ([A, B, B, C], 0, 1, 0, 0),
        ([A, ("x", 300, 600), C], 0, 0, 1, 0),
        ([A, ("b", 310, 600), C], 0, 0, 0, 1),
        ([], 3, 0, 0, 0),
    ],
)
def test_damage_is_counted_word_by_word(got, lost, duplicated, changed, moved):
    reference = log_of((101.0, [A, B, C]))
    damage = compare([log_of((101.0, got))], lambda _: reference)
    assert (damage.lost, damage.duplicated) == (lost, duplicated)
    assert (damage.changed, damage.moved) == (changed, moved)
    assert damage.identical == (got == [A, B, C])


def test_a_label_that_differs_after_the_revision_is_counted():
    def labelled(first, second):
        log = log_of((101.0, [A, B]))
        turn = json.loads(log.arrivals[0][1])
        for word, speaker in zip(turn["words"], first, strict=True):
            word["speaker"] = speaker
        words = [{**w, "speaker": s} for w, s in zip(turn["words"], second, strict=True)]
        revision = {"type": "SpeakerRevision", "revisions": [{"turn_order": 0, "words": words}]}
        log.arrivals = [(101.0, json.dumps(each)) for each in (turn, revision)]
        return log

    reference = labelled("AB", "AA")
    assert compare([labelled("AB", "AA")], lambda _: reference).identical == 1
    damage = compare([labelled("AB", "AB")], lambda _: reference)
    assert (damage.labelled, damage.relabelled, damage.identical) == (2, 1, 0)


def test_a_pause_is_the_worst_delay_after_the_fault():
    log = log_of((100.9, [A, B, C]), (103.0, [("d", 2_000, 2_500)]), (120.0, [("e", 0, 19_900)]))
    found = pauses([log], [(102.0, Fault(2.0, "kill"))])
    assert found.usual == pytest.approx(0.3)
    assert found.longest == pytest.approx(0.2)


def test_schedules():
    assert parse_schedule("stop@20+3, kill@10", Random(1)) == [
        Fault(10.0, "kill"),
        Fault(20.0, "stop", 3.0),
    ]
    many = parse_schedule("kill*50/2", Random(1))
    assert many == parse_schedule("kill*50/2", Random(1))
    assert all(5 + 2 * i <= fault.at < 7 + 2 * i for i, fault in enumerate(many))
    with pytest.raises(ValueError, match="kill"):
        parse_schedule("kill", Random(1))


@pytest.mark.slow
@pytest.mark.nginx
@pytest.mark.parametrize(
    ("schedule", "full_disk"),
    [
        ("kill@3,stop@6+3,term@9", False),
        ("cut@3,garbage@5,hold@7+1,nginx@9,clock@4+4", False),
        ("kill@3,nginx@6", True),
    ],
    ids=["engines", "network", "full-disk"],
)
async def test_no_word_is_lost(tmp_path, schedule, full_disk):
    faults = parse_schedule(schedule, Random(1))
    kinds = {fault.kind for fault in faults}
    cluster_config = ClusterConfig(
        tmp_path,
        engines=2,
        through_proxy="cut" in kinds,
        full_disk=full_disk,
        clock=tmp_path / "clock" if "clock" in kinds else None,
    )
    with trio.fail_after(100):
        async with run_cluster(cluster_config) as cluster:
            config = bench_config(cluster, 4, 12.0, faults, speakers=True)
            found = await run_cluster_faults(cluster, config, noise_recordings(1))
    report = found.run
    assert sum(report.faults.values()) == len(faults)
    assert report.damage.words > 100
    assert (report.damage.lost, report.damage.duplicated, report.damage.changed) == (0, 0, 0)
    assert report.damage.identical == 4
    assert (report.damage.labelled, report.damage.relabelled) == (report.damage.words, 0)
    assert report.codes == {"1000": 4}
    assert found.failovers >= 1, "nothing was hit: the test has shown nothing"
