"""What a window's voices say, in pieces."""

import numpy as np

from ssasr.engine.speakers.pieces import AGAIN, GRAIN, LEAST_CLEAN, PIECE, Activity, pieces
from ssasr.engine.speakers.segmentation import FRAME_STEP, VOICES, frames_in
from ssasr.engine.speakers.windows import Window
from ssasr.protocol.voices import CONTEXT

END = 10 * CONTEXT
FRAMES = frames_in(CONTEXT)
AUDIO = np.arange(CONTEXT, dtype=np.float32)
SECOND = 16_000


def found(*spoken, since=0):
    """``spoken``: (channel, first, last) in seconds of the window; the first named is louder.
    ``since``: of the window's start."""
    active = np.zeros((FRAMES, VOICES), bool)
    louder = np.zeros((FRAMES, VOICES), bool)
    for channel, first, last in spoken:
        frames = slice(int(first * SECOND / FRAME_STEP), int(last * SECOND / FRAME_STEP))
        louder[frames, channel] = ~active[frames].any(axis=1)
        active[frames, channel] = True
    return pieces(Window(END, AUDIO, END - CONTEXT + since), Activity(active, louder))


def seconds(piece):
    start = END - CONTEXT
    return round((piece.runs[-1].end - piece.runs[0].start) / SECOND, 1), round(
        (piece.runs[0].start - start) / SECOND, 1
    )


def test_a_piece_ends_where_there_is_a_pause_and_a_breath_is_none():
    assert [seconds(each) for each in found((0, 5, 7), (0, 7.15, 8), (0, 8.4, 9.4))] == [
        (1.5, 5.0), (1.5, 6.5), (1.0, 8.4),
    ]  # fmt: skip


def test_what_lasts_is_cut_into_equal_pieces():
    lengths = [length for length, _ in map(seconds, found((1, 2, 9)))]
    assert len(lengths) == 4
    assert max(lengths) - min(lengths) < 0.15
    assert all(abs(length - PIECE / SECOND) < 0.6 for length in lengths)


def test_a_piece_does_not_go_on_after_somebody_else():
    said = found((0, 5, 6), (1, 6.05, 6.15), (0, 6.2, 7))
    assert [piece.channel for piece in said] == [0, 1, 0]


def test_an_embedding_is_made_from_what_nobody_else_says_in_whole_grains():
    first, second = found((0, 6, 8), (1, 7, 9))
    assert (first.channel, second.channel) == (0, 1)
    assert [run.louder for run in second.runs] == [False, True]
    for piece, start in ((first, 6), (second, 8)):
        assert len(piece.clean) % GRAIN == 0
        assert LEAST_CLEAN <= len(piece.clean) <= SECOND
        assert start * SECOND - 500 <= piece.clean[0]
        assert piece.clean[-1] <= (start + 1) * SECOND + 500


def test_too_little_and_what_the_window_before_had_has_no_embedding():
    early, again, short, last = found(
        (0, 1, 2), (0, 3, 4), (0, 6, 6.4), (0, 8, 9), since=4 * SECOND + AGAIN - SECOND // 4
    )
    assert len(early.clean) == len(short.clean) == 0
    assert len(again.clean) > 0
    assert len(last.clean) > 0


def test_nobody_says_nothing():
    assert found() == []
    assert pieces(Window(END, AUDIO[:0]), Activity.none()) == []
