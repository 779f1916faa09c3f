"""Word times from the decoder's attention to the audio.

As published with Whisper: certain heads of the cross-attention follow the audio. Their scores are
normalised, smoothed and averaged, and dynamic time warping finds the monotone path of tokens
through the frames. A token begins where the path first reaches it and ends where the next begins,
so times are monotone by construction.
"""

import numpy as np
from numpy.typing import NDArray

FRAME = 320
"""Samples of one encoder vector, 20 ms."""

Matrix = NDArray[np.float32]

# Median of seven by exchanges: sorting only as far as the middle needs. Pairs (low, high).
_MEDIAN_OF_SEVEN = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4),
    (1, 3), (3, 4),
)  # fmt: skip


def median_of_seven(values: Matrix) -> Matrix:
    """Running median over the last axis, edges reflected: (..., n) -> (..., n)."""
    n = values.shape[-1]
    if n <= 3:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(3, 3)], mode="reflect")
    window = [padded[..., shift : shift + n] for shift in range(7)]
    for low, high in _MEDIAN_OF_SEVEN:
        window[low], window[high] = (
            np.minimum(window[low], window[high]),
            np.maximum(window[low], window[high]),
        )
    return window[3]


def attention_map(scores: Matrix) -> Matrix:
    """scores (heads, tokens, frames), unnormalised -> (tokens, frames), large where a token is."""
    weights = scores - scores.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    deviation = weights.std(axis=-2, keepdims=True)
    weights -= weights.mean(axis=-2, keepdims=True)
    weights /= np.maximum(deviation, 1e-8)
    mapped: Matrix = median_of_seven(weights).mean(axis=0)
    return mapped


def warp(cost: Matrix) -> NDArray[np.intp]:
    """The first frame of each token on the cheapest monotone path: (tokens, frames) -> (tokens,).

    Moves are one token on, one frame on, or both. A row is computed at once: with S the running sum
    of the row's cost, reaching frame j is S[j] plus the least over k <= j of entering at k less
    S[k - 1].
    """
    tokens, frames = cost.shape
    total = np.full((tokens, frames), np.inf, dtype=np.float64)
    total[0] = np.cumsum(cost[0], dtype=np.float64)
    for token in range(1, tokens):
        above = total[token - 1]
        entry = above.copy()
        entry[1:] = np.minimum(entry[1:], above[:-1])
        running = np.cumsum(cost[token], dtype=np.float64)
        before = running - cost[token]
        total[token] = running + np.minimum.accumulate(entry - before)
    return _first_frames(total)


def _first_frames(total: NDArray[np.float64]) -> NDArray[np.intp]:
    """Go back from the last token and frame; prefer the diagonal when moves cost the same."""
    tokens, frames = total.shape
    first = np.zeros(tokens, dtype=np.intp)
    token, frame = tokens - 1, frames - 1
    while token > 0:
        if frame == 0:
            token -= 1
            continue
        diagonal, above = total[token - 1, frame - 1], total[token - 1, frame]
        left = total[token, frame - 1]
        if diagonal <= above and diagonal <= left:
            first[token] = frame
            token, frame = token - 1, frame - 1
        elif above <= left:
            first[token] = frame
            token -= 1
        else:
            frame -= 1
    return first


def token_frames(scores: Matrix, skip: int) -> NDArray[np.intp]:
    """First frame of each token, and of the end of the text.

    scores (heads, rows, frames): a row for each decoder input; the first ``skip`` rows (start of
    transcript and the like) take part in the normalisation only; row ``skip`` predicts the first
    token, the last row the end of the text. Returns (rows - skip,)."""
    return warp(-attention_map(scores)[skip:])
