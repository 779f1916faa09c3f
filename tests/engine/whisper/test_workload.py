"""The work of Whisper in units: each of them can be timed, and what is asked for is among them."""

import torch

from ssasr.engine.capacity import CapacityMeter
from ssasr.engine.vad import SileroVad
from ssasr.engine.whisper.partial_interval import MOST, TALKING, PartialInterval
from ssasr.engine.whisper.workload import WIDEST, demand, widest_streams, workload
from tests.engine.whisper import tiny


class Judge:
    def probability(self, audio):
        return torch.ones(len(audio))


def test_every_unit_is_timed_and_streams_are_offered():
    work = workload(tiny.decoding().passes, SileroVad(), Judge(), workers=2, capacity=4.0)
    meter = CapacityMeter(work)
    assert 1 <= meter.measure() <= work.most
    assert all(took > 0 for took in meter.seconds.values())
    for amounts in (work.demand(3), work.ending, work.blocking):
        assert set(amounts) <= set(work.units)


def test_words_in_the_making_are_not_too_rare_at_what_is_offered():
    for capacity in (1.0, 2.1, 4.2, 8.4):
        streams = widest_streams(capacity)
        interval = PartialInterval(capacity)
        interval.note_speaking(round(TALKING * streams))
        assert interval.factor <= WIDEST < MOST


def test_more_streams_ask_for_less_each():
    few, many = demand(2, 4.2), demand(8, 4.2)
    assert few["detector"] / 2 == many["detector"] / 8
    assert few["encoder"] / 2 > many["encoder"] / 8
