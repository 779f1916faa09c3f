"""Warping against brute force, the median against numpy, and times that are monotone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.whisper.alignment import attention_map, median_of_seven, token_frames, warp


def _cheapest(cost):
    """Cost of the best path by trying all of them."""
    tokens, frames = cost.shape
    best = np.inf
    stack = [(0, 0, cost[0, 0])]
    while stack:
        token, frame, total = stack.pop()
        if (token, frame) == (tokens - 1, frames - 1):
            best = min(best, total)
        for down, right in ((0, 1), (1, 0), (1, 1)):
            if token + down < tokens and frame + right < frames:
                at = (token + down, frame + right)
                stack.append((*at, total + cost[at]))
    return best


def _cost_through(cost, first):
    """Cost of the cheapest path that enters the tokens at these frames."""
    tokens, frames = cost.shape
    best = np.inf
    options = []
    for token in range(tokens):
        last = frames - 1 if token == tokens - 1 else None
        if last is not None:
            options.append([last])
        else:
            options.append([first[token + 1], first[token + 1] - 1])
    for lasts in itertools.product(*options):
        if all(lasts[t] >= first[t] for t in range(tokens)):
            best = min(best, sum(cost[t, first[t] : lasts[t] + 1].sum() for t in range(tokens)))
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_the_path_is_the_cheapest(tokens, frames, seed):
    cost = np.random.default_rng(seed).standard_normal((tokens, frames)).astype(np.float32)
    first = warp(cost)
    assert first[0] == 0
    assert (np.diff(first) >= 0).all()
    assert _cost_through(cost, first) == pytest.approx(_cheapest(cost), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(0, 10_000))
def test_running_median(n, seed):
    values = np.random.default_rng(seed).standard_normal((2, 3, n)).astype(np.float32)
    padded = np.pad(values, [(0, 0), (0, 0), (3, 3)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 7, axis=-1)
    assert np.array_equal(median_of_seven(values), np.median(windows, axis=-1))


def test_tokens_are_found_where_the_heads_look():
    frames, begins = 100, [0, 12, 40, 55, 80]
    scores = np.random.default_rng(0).standard_normal((4, 7, frames)).astype(np.float32)
    for row, (begin, end) in enumerate(zip(begins, [*begins[1:], frames], strict=True)):
        scores[:, row + 2, begin:end] += 8.0
    found = token_frames(scores, 2)
    assert len(found) == 5
    assert np.abs(found - begins).max() <= 2


def test_one_row_and_one_frame_do_not_fail():
    assert token_frames(np.zeros((1, 1, 1), np.float32), 0).tolist() == [0]
    assert np.isfinite(attention_map(np.zeros((2, 1, 3), np.float32))).all()
