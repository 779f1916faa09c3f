"""The scheduler under random feeding, batching and leaving; and its order of urgency."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ssasr.engine.recognizer import Outcome, StepResult
from ssasr.engine.scheduler import Scheduler
from ssasr.engine.streams import BLOCK, answers
from ssasr.protocol.recognition import Audio, Final, Finalize, Open, StreamOptions

CHUNK = 100
OPENING = Open("session", StreamOptions())


def audio(stream, samples):
    return Audio(stream.received, bytes(2 * samples))


def admit(scheduler, opening):
    """A new stream, or None when there is no room."""
    return scheduler.admit_reserved(opening) if scheduler.reserve() else None


def run_batch(scheduler, now):
    """One step of a recogniser that hears nothing; the messages by stream."""
    step_inputs = scheduler.next_batch()
    return step_inputs, finish(scheduler, step_inputs, now)


def finish(scheduler, step_inputs, now, unfinished=False):
    messages, outcomes = [], []
    for take in step_inputs:
        position = take.start.at if take.final_at is None else take.final_at
        outcomes.append(Outcome((StepResult(position, (), (), position),), unfinished))
        take.stream.state = take
        messages += [(take.stream, message) for message in answers(take, outcomes[-1])]
    left = [take for take in step_inputs if not scheduler.is_current(take.stream)]
    final = [take for take in step_inputs if take not in left and take.final_at is not None]
    spent = scheduler.complete(step_inputs, outcomes, now)
    assert {id(take) for take in spent} == {id(take) for take in left + final * (not unfinished)}
    return messages


def test_finals_go_first_then_the_oldest_audio():
    scheduler = Scheduler(CHUNK, max_streams=8, max_batch=2)
    old, new, final = (admit(scheduler, OPENING) for _ in range(3))
    scheduler.feed(old, audio(old, CHUNK), now=1.0)
    scheduler.feed(new, audio(new, CHUNK), now=2.0)
    scheduler.feed(final, audio(final, 10), now=3.0)
    scheduler.feed(final, Finalize(0, 10), now=3.0)
    assert [take.stream for take in scheduler.next_batch()] == [final, old]
    assert [take.stream for take in scheduler.next_batch()] == [new]


def test_steps_at_once_share_what_is_ready():
    scheduler = Scheduler(CHUNK, max_streams=6, max_batch=6, steps_at_once=2)
    streams = [admit(scheduler, OPENING) for _ in range(6)]

    def feed(chosen, now):
        for stream in chosen:
            scheduler.feed(stream, audio(stream, CHUNK), now)

    feed(streams[:1], 0.0)
    few = scheduler.next_batch()
    feed(streams, 1.0)
    many = scheduler.next_batch()
    assert [take.stream for take in many] == streams[1:4], "three of six"
    finish(scheduler, few, 2.0)
    assert [take.stream for take in scheduler.next_batch()] == [streams[0], *streams[4:]]
    feed(streams[1:], 3.0)
    assert scheduler.next_batch() == [], "all are in a step"
    finish(scheduler, many, 4.0)
    assert [take.stream for take in scheduler.next_batch()] == streams[1:4]


FEEDING = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=9)
"""Streams that get another chunk, one after the other, and whether their segments end with it."""


@given(room=st.integers(1, 3), cycles=st.lists(st.tuples(FEEDING, FEEDING), max_size=12))
def test_what_does_not_fit_is_taken_in_order_of_urgency(room, cycles):
    """Whatever comes while a batch is chosen and while it runs."""
    scheduler = Scheduler(CHUNK, max_streams=7, max_batch=room)
    streams = [admit(scheduler, OPENING) for _ in range(7)]
    since, ends, now = {}, set(), 0.0

    def feed(feeding, ending):
        nonlocal now
        for number, end in feeding:
            now += 1.0
            stream = streams[number]
            if stream in ending | ends:
                continue  # the next segment begins when this one has ended
            scheduler.feed(stream, audio(stream, CHUNK), now)
            since.setdefault(stream, now)
            if end:
                scheduler.feed(stream, Finalize(stream.segment, stream.received), now)
                ends.add(stream)

    for before, meanwhile in [*cycles, *[((), ())] * 7]:
        feed(before, set())
        ordered = sorted(since, key=lambda stream: (stream not in ends, since[stream]))
        first = set(ordered[:room])
        step_inputs = scheduler.next_batch()
        assert len(step_inputs) == len(first)
        assert {take.stream for take in step_inputs} == first
        ending = ends & first
        for stream in first:
            del since[stream]
        ends -= ending
        feed(meanwhile, ending)
        finish(scheduler, step_inputs, now)
    assert not since, "seven streams are through in seven batches, however few fit into one"
    assert all(stream.position == stream.received for stream in streams)


def test_nobody_starves_where_too_few_fit():
    scheduler = Scheduler(CHUNK, max_streams=7, max_batch=2)
    streams = [admit(scheduler, OPENING) for _ in range(7)]
    for now in range(70):
        for stream in streams:
            scheduler.feed(stream, audio(stream, CHUNK), float(now))
        if now % 10 == 0:
            scheduler.feed(streams[0], Finalize(streams[0].segment, streams[0].received), now)
        run_batch(scheduler, float(now))
        # Four batches are room for all, and for an end that goes first.
        assert max(stream.backlog for stream in streams) <= 4 * CHUNK


def test_a_stream_that_is_behind_gets_several_chunks_in_one_step():
    scheduler = Scheduler(CHUNK, max_streams=1, max_batch=1)
    stream = admit(scheduler, OPENING)
    scheduler.feed(stream, audio(stream, 5 * CHUNK + 30), now=0.0)
    (take,) = scheduler.next_batch()
    assert take.samples == 5 * CHUNK


def test_but_no_more_of_them_than_the_others_can_wait_for():
    """With and without an end behind them; nothing is left out, and the others go along."""
    scheduler = Scheduler(CHUNK, max_streams=2, max_batch=2, max_chunks=3)
    behind, other = admit(scheduler, OPENING), admit(scheduler, OPENING)
    scheduler.feed(behind, audio(behind, 7 * CHUNK + 30), now=0.0)
    taken = []
    for step in range(4):
        scheduler.feed(other, audio(other, CHUNK), now=0.0)
        if step == 2:
            scheduler.feed(behind, audio(behind, 4 * CHUNK), now=0.0)
            scheduler.feed(behind, Finalize(0, behind.received), now=0.0)
        step_inputs, _ = run_batch(scheduler, 0.0)
        (mine,) = (take for take in step_inputs if take.stream is behind)
        taken.append((mine.samples, mine.final_at))
        assert len(step_inputs) == 2
    end = 11 * CHUNK + 30
    assert taken == [(3 * CHUNK, None)] * 3 + [(2 * CHUNK + 30, end)]


def test_finalize_ahead_of_and_behind_the_position():
    scheduler = Scheduler(CHUNK, max_streams=1, max_batch=1)
    stream = admit(scheduler, OPENING)
    scheduler.feed(stream, audio(stream, 250), now=0.0)
    run_batch(scheduler, 0.0)
    assert stream.position == 200
    scheduler.feed(stream, Finalize(0, 130), now=0.0)
    (take,), messages = run_batch(scheduler, 0.0)
    assert (take.final_at, take.samples) == (130, 0)
    assert [type(message) for _, message in messages] == [Final]
    assert (stream.segment, stream.position) == (1, 130)
    (take,) = scheduler.next_batch()
    assert (take.start.at, take.samples, take.fresh) == (130, 100, True)


def test_the_next_takes_are_made_while_a_step_runs():
    scheduler = Scheduler(CHUNK, max_streams=BLOCK + 3, max_batch=BLOCK + 3)
    streams = [admit(scheduler, OPENING) for _ in range(BLOCK + 3)]
    for stream in streams:
        scheduler.feed(stream, audio(stream, CHUNK), now=0.0)
    ending, early = streams[0], streams[1:-2]
    scheduler.feed(ending, Finalize(0, CHUNK), now=0.0)
    running = scheduler.next_batch()
    for stream in streams:
        scheduler.feed(stream, audio(stream, CHUNK), now=1.0)
    made = [stream.next_input for stream in early]
    assert None not in made
    assert ending.next_input is None, "its next take begins where the running step ends it"
    scheduler.feed(early[0], audio(early[0], CHUNK), now=1.0)
    scheduler.feed(early[1], Finalize(0, CHUNK + 7), now=1.0)
    finish(scheduler, running, now=2.0)
    step_inputs = {take.stream: take for take in scheduler.next_batch()}
    assert len(step_inputs) == len(streams)
    assert [step_inputs[stream] for stream in early[2:]] == made[2:]
    assert step_inputs[early[0]].samples == 2 * CHUNK, "what came meanwhile is not left behind"
    assert (step_inputs[early[1]].samples, step_inputs[early[1]].final_at) == (7, CHUNK + 7)
    assert (
        step_inputs[ending].segment,
        step_inputs[ending].start.at,
        step_inputs[ending].fresh,
    ) == (
        1,
        CHUNK,
        True,
    )


def test_what_was_put_off_is_stepped_again_and_only_once():
    scheduler = Scheduler(CHUNK, max_streams=1, max_batch=1)
    stream = admit(scheduler, OPENING)
    scheduler.feed(stream, audio(stream, CHUNK), now=0.0)
    finish(scheduler, scheduler.next_batch(), 0.0, unfinished=True)
    (take,) = scheduler.next_batch()
    assert take.samples == 0
    scheduler.feed(stream, audio(stream, CHUNK - 1), now=0.0)
    finish(scheduler, [take], 0.0)
    assert scheduler.next_batch() == []


def test_a_full_engine_admits_nobody_and_a_slot_comes_back_with_a_new_name():
    scheduler = Scheduler(CHUNK, max_streams=1, max_batch=1)
    first = admit(scheduler, OPENING)
    assert admit(scheduler, OPENING) is None
    scheduler.release(first)
    second = admit(scheduler, OPENING)
    assert second.id.slot == first.id.slot
    assert second.id.generation != first.id.generation
    assert not scheduler.is_current(first)


class SchedulerMachine(RuleBasedStateMachine):
    """A stream is never twice in a batch, never forgotten, and gets all of its audio in order."""

    streams = Bundle("streams")

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.scheduler = Scheduler(CHUNK, max_streams=4, max_batch=2, steps_at_once=2)
        self.running = []
        """Batches, two at most."""
        self.unfinished = set()

    @rule(target=streams)
    def admit(self):
        return admit(self.scheduler, OPENING)

    @rule(stream=streams, samples=st.integers(0, 350))
    def feed(self, stream, samples):
        if stream is not None and self.scheduler.is_current(stream):
            self.now += 1
            self.scheduler.feed(stream, audio(stream, samples), self.now)

    @rule(stream=streams, share=st.floats(0, 1))
    def finalize(self, stream, share):
        if stream is not None and self.scheduler.is_current(stream) and not stream.urgent:
            at = int(stream.start.at + share * (stream.received - stream.start.at))
            self.scheduler.feed(stream, Finalize(stream.segment, at), self.now)

    @rule(stream=streams)
    def leave(self, stream):
        if stream is not None:
            self.scheduler.release(stream)

    @rule()
    def start_batch(self):
        if len(self.running) < 2:
            batch = self.scheduler.next_batch()
            assert len(batch) <= 2
            self.running += [batch] if batch else []
            names = [take.stream.id for batch in self.running for take in batch]
            assert len(names) == len(set(names)), "a stream is in one step at a time"
            for take in batch:
                due = take.samples or take.final_at is not None or take.stream in self.unfinished
                assert due, "nobody is stepped for nothing"
                self.unfinished.discard(take.stream)

    @rule(unfinished=st.booleans(), last=st.booleans())
    def finish_batch(self, unfinished=False, last=False):
        if self.running:
            batch = self.running.pop(-1 if last else 0)
            finish(self.scheduler, batch, self.now, unfinished)
            if unfinished:
                self.unfinished.update(take.stream for take in batch)

    @rule()
    def drain(self):
        """Left alone, the scheduler works off everything within a bounded number of batches."""
        while self.running:
            self.finish_batch()
        for _ in range(100):
            self.start_batch()
            if not self.running:
                break
            self.finish_batch()
        assert not self.scheduler.has_work
        assert not any(self.scheduler.is_current(stream) for stream in self.unfinished)

    @invariant()
    def whole(self):
        self.scheduler.check_integrity()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_kept_audio_is_bounded_and_exact():
    scheduler = Scheduler(CHUNK, max_streams=1, max_batch=1)
    stream = admit(scheduler, OPENING)
    rng = np.random.default_rng(0)
    everything = rng.integers(-3_000, 3_000, 100 * 16_000).astype("<i2")
    got = []
    for start in range(0, len(everything), 16_000):
        piece = everything[start : start + 16_000]
        scheduler.feed(stream, Audio(start, piece.tobytes()), 0.0)
        while step_inputs := scheduler.next_batch():
            got += [take.audio for take in step_inputs]
            finish(scheduler, step_inputs, 0.0)
    received = np.concatenate(got)
    assert np.array_equal(np.round(received * 32_768).astype("<i2"), everything)
    assert stream._pcm.samples <= 32 * 16_000
