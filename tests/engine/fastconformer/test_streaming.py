"""The bookkeeping of rows: every chunk once, in order, as soon as it can be computed."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssasr.engine.fastconformer.detokenizer import Transcript
from ssasr.engine.fastconformer.encoder import encoder_frames
from ssasr.engine.fastconformer.program import ENDLESS, Column
from ssasr.engine.fastconformer.slot_state import SlotState, spoken
from ssasr.engine.fastconformer.streaming import Grid, Progress, RowPlan, can_rewind, write_table
from ssasr.protocol.recognition import VAD_FRAME

chunk_frames = st.sampled_from([1, 2, 4, 7, 14])


def rows_of(plan):
    while plan.rows_left:
        yield plan.next_row()


def feed(grid, progress, samples, end=None):
    """Rows for that many samples, which count up from the position they are at."""
    audio = np.arange(progress.samples, progress.samples + samples, dtype=np.float32)
    return list(rows_of(RowPlan.begin(grid, progress, audio, end)))


@given(st.integers(0, 10**6))
def test_frames_at_end_is_the_encoder_formula(samples):
    expected = int(encoder_frames(torch.tensor(samples // 160))) if samples >= 160 else 0
    assert Grid.frames_at_end(samples) == expected


@given(chunk_frames, st.integers(0, 10**6))
def test_a_chunk_is_complete_exactly_when_its_samples_are_there(frames, samples):
    grid = Grid(frames)
    chunks = grid.complete(samples)
    assert chunks == 0 or grid.needed(chunks - 1) <= samples
    assert grid.needed(chunks) > samples
    assert grid.complete(grid.needed(chunks)) == chunks + 1
    assert grid.complete(grid.needed(chunks) - 1) == chunks


@given(chunk_frames, st.lists(st.integers(0, 60_000), max_size=8), st.integers(0, 40_000))
def test_every_sample_and_every_chunk_once(frames, pieces, rest):
    grid, progress = Grid(frames), Progress()
    rows = [row for piece in pieces for row in feed(grid, progress, piece)]
    received = sum(pieces)
    assert progress.chunks == grid.complete(received)
    rows += feed(grid, progress, rest, received + rest)
    total = received + rest
    audio = np.concatenate([np.zeros(0, np.float32), *(row.audio for row in rows)])
    assert np.array_equal(audio, np.arange(total, dtype=np.float32))
    assert [row.chunk for row in rows if row.chunk >= 0] == list(range(progress.chunks))
    assert -(-grid.frames_at_end(total) // frames) == progress.chunks
    assert sum(row.vad_count for row in rows) == total // VAD_FRAME
    assert all(row.vad_count <= -(-grid.chunk // VAD_FRAME) for row in rows)
    position = 0
    for row in rows:
        assert row.position == position
        position += len(row.audio)
        assert len(row.audio) <= grid.chunk
        limit = total if row.end == total else grid.needed(max(row.chunk, 0))
        assert row.chunk < 0 or position >= min(limit, grid.needed(row.chunk))


@given(chunk_frames, st.integers(1, 20), st.data())
def test_on_the_grid_each_step_is_one_row_with_one_chunk(frames, steps, data):
    """And the slot state, which takes such steps for all streams at once, says the same."""
    grid, progress = Grid(frames), Progress()
    slot_state, slots = SlotState(grid, 5), np.array([3])
    slot_state.open(3, Transcript(None, 0), 0)
    for step in range(steps):
        assert slot_state.on_grid_chunk(
            slots, [np.zeros(grid.chunk, np.float32)], [None]
        ).tolist() == [True]
        table = slot_state.advance(slots)
        (row,) = feed(grid, progress, grid.chunk)
        assert slot_state.progress(3) == progress
        expected = np.zeros((1, len(Column)), np.int64)
        expected[0, Column.SLOT] = 3
        write_table(expected, [row])
        assert table.tolist() == expected.tolist()
        assert (len(row.audio), row.chunk, row.end) == (grid.chunk, step, ENDLESS)
    end = data.draw(st.integers(0, progress.samples + grid.chunk))
    rest = max(0, end - progress.samples)
    assert len(feed(grid, progress, rest, end)) <= 2


@given(chunk_frames, st.integers(0, 3), st.sampled_from([0, 1, 200]), st.sampled_from([1, 2, 0.5]))
def test_what_is_not_the_next_chunk_takes_a_plan(frames, chunks, more, share):
    grid, progress = Grid(frames), Progress()
    before, size = chunks * grid.chunk + more, int(share * grid.chunk)
    slot_state, slots = SlotState(grid, 1), np.array([0])
    slot_state.open(0, Transcript(None, 0), 0)
    feed(grid, progress, before)
    slot_state.set_progress(0, progress)
    audio = [np.zeros(size, np.float32)]
    (on_grid_chunk,) = slot_state.on_grid_chunk(slots, audio, [None]).tolist()
    assert on_grid_chunk == (share == 1 and more == 0)
    assert not slot_state.on_grid_chunk(slots, audio, [0]).any()


@given(st.lists(st.integers(0, 4), max_size=9))
def test_spoken_gives_each_row_its_own(counts):
    speech = np.arange(4 * len(counts), dtype=np.float32).reshape(len(counts), 4)
    found = spoken(speech, np.array(counts, np.int64))
    assert found == [tuple(row[:n]) for row, n in zip(speech.tolist(), counts, strict=True)]


@given(chunk_frames, st.integers(0, 200_000), st.integers(0, 200_000))
def test_going_back_computes_what_a_fresh_segment_would(frames, received, end):
    received, end = max(received, end), min(received, end)
    grid, gone, fresh = Grid(frames), Progress(), Progress()
    feed(grid, gone, received)
    back = can_rewind(grid, gone, end, rewind=2)
    assert back == (grid.complete(received) - grid.complete(end) <= 2)
    again = feed(grid, gone, 0, end)
    on_grid_chunk = feed(grid, fresh, end, end)
    assert gone.chunks == fresh.chunks
    tail = [row.chunk for row in on_grid_chunk if row.chunk >= grid.complete(end)]
    assert [row.chunk for row in again] == tail
    assert all(row.end == end and row.vad_count == 0 for row in again)
