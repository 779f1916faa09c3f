"""What is around the products of a conformer layer, for a processor: compiled loops over the rows
of a batch.

As operations of torch each of these steps is five to ten passes over memory, and for one stream a
pass is mostly its call. Here a row stays in the first cache between the product that made it and
the integers for the next one. A row's result depends on nothing but the row, since no loop runs
over several, and so words do not depend on company.

Arrays are C-contiguous, float32 unless said. A ``Product`` is what a layer's weights made of
integers. Inputs of the next product are written to an ``out`` as ``kernels`` take them, with a step
for each row: the row's largest magnitude becomes ``reach``, unless the step would be smaller than
``least``, and 0 becomes ``zero``. Where ``reach`` is 0, rows are written as they are, with a step
of one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssasr.engine.compiled import compiled
from ssasr.engine.float_product import multiply

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Inputs = NDArray[np.uint8] | Floats
"""Of a product: integers, or floats where ``reach`` is 0."""

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_EPSILON = np.float32(1e-5)
"""Of a layer normalisation."""
_LEAST_EXPONENT, _LARGEST_EXPONENT = np.float32(-87.0), np.float32(88.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C0, _C1, _C2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
_C3, _C4 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1)
_LEAST = np.float32(-np.inf)
_EXPONENT_BIAS, _MANTISSA, _MAGNITUDE = np.int32(127), np.int32(23), np.int32(0x7FFF_FFFF)


class Product(NamedTuple):
    """A layer's result is ``steps[row] * values[row] + bias``."""

    values: Floats
    """(rows, outputs)."""
    steps: Floats
    """(rows,)."""
    bias: Floats
    """(outputs,)."""


class Rounding(NamedTuple):
    """How the rows of a layer's inputs become integers."""

    zero: np.float32
    reach: np.float32
    least: np.float32


class Norm(NamedTuple):
    """Weight and bias (dim,) of a layer normalisation."""

    weight: Floats
    bias: Floats


class Streams(NamedTuple):
    """The streams of a batch, which has a row for each frame of their chunks. int64 (batch,)."""

    slot: Integers
    first: Integers
    """The chunk's first frame."""
    frames: Integers
    """That the stream has."""
    bounds: Integers
    """(batch + 1,): where each stream's rows begin, and the last one's end."""


class Heads(NamedTuple):
    """Of attention: the biases of queries for keys and for positions (heads, size), and what the
    positions' encodings became (heads, size, left + 2 c - 1), those of falling distance."""

    bias_u: Floats
    bias_v: Floats
    relative: Floats


class Stretch(NamedTuple):
    """From one frame up to another."""

    begin: int
    end: int


class Taps(NamedTuple):
    """Of a convolution of each channel by itself, (kernel, dim) or (3, 3, dim), and its bias
    (dim,)."""

    weight: Floats
    bias: Floats


@compiled
def normalise(x: Floats, norm: Norm) -> None:
    """In place."""
    out = np.empty(x.shape[1], np.float32)
    for i in range(len(x)):
        _normalise(x[i], out, norm)
        _copy(out, x[i])


@compiled
def normalise_and_round(x: Floats, norm: Norm, rounding: Rounding, out: Inputs) -> Floats:
    """x (rows, dim) to ``out``, of the same shape; the steps."""
    steps, row = np.empty(len(x), np.float32), np.empty(x.shape[1], np.float32)
    for i in range(len(x)):
        _normalise(x[i], row, norm)
        steps[i] = _round(row, rounding, out[i])
    return steps


@compiled
def silu_and_round(product: Product, rounding: Rounding, out: Inputs) -> Floats:
    """The product, whose values are changed, to ``out``, of the same shape; the steps."""
    steps = np.empty(len(product.values), np.float32)
    for i in range(len(steps)):
        row, step, bias = product.values[i], product.steps[i], product.bias
        for j in range(len(row)):
            x = row[j] * step + bias[j]
            row[j] = x / (_ONE + exponential(-x))
        steps[i] = _round(row, rounding, out[i])
    return steps


@compiled
def add(x: Floats, product: Product, factor: np.float32) -> None:
    """To x (rows, dim), in place, the layer's result times the factor."""
    for i in range(len(x)):
        row, values, step, bias = x[i], product.values[i], product.steps[i], product.bias
        for j in range(len(row)):
            row[j] += factor * (values[j] * step + bias[j])


@compiled
def attend(
    product: Product,
    streams: Streams,
    rings: Floats,
    left: int,
    heads: Heads,
    rounding: Rounding,
    out: Inputs,
) -> Floats:
    """Relative-position attention of each stream's chunk over itself and ``left`` frames before it,
    those that exist: ``encoder.Attention``. ``product``: queries, keys and values (rows, 3
    dim). ``rings`` (slots, 2, dim × places): keys (heads, size, places) and values (heads, places,
    size); those of frame n are at n modulo the places, and those of the chunk are written.
    ``out`` (rows, dim); the steps."""
    count_heads, size, total = heads.relative.shape
    most, places = (total - left + 1) // 2, rings.shape[2] // out.shape[1]
    steps, mixed = np.empty(len(out), np.float32), np.empty((most, out.shape[1]), np.float32)
    for_keys, for_places = np.empty((most, size), np.float32), np.empty((most, size), np.float32)
    by_key, by_place = np.empty((most, places), np.float32), np.empty((most, total), np.float32)
    scores = np.empty(left + most, np.float32)
    for stream in range(len(streams.slot)):
        ring, first = rings[streams.slot[stream]], streams.first[stream]
        keys = ring[0].reshape(count_heads, size, places)
        values = ring[1].reshape(count_heads, places, size)
        row = streams.bounds[stream]
        count = streams.bounds[stream + 1] - row
        begin = max(first - left, 0)
        window = Stretch(begin, max(begin, min(first + count, streams.frames[stream])))
        used = min(first + count, places)
        for head in range(count_heads):
            _keep(product, row, count, head, keys[head], values[head], first)
            _queries(product, row, count, heads, head, for_keys, for_places)
            multiply(for_keys[:count], keys[head], by_key)
            multiply(for_places[:count], heads.relative[head], by_place)
            for i in range(count):
                offset = left + most - 1 - first + begin - i
                _weigh(by_key[i], by_place[i, offset:], window, scores)
            multiply(by_key[:count, :used], values[head, :used], mixed[:, head * size :])
        for i in range(count):
            steps[row + i] = _round(mixed[i], rounding, out[row + i])
    return steps


@compiled
def convolve(
    product: Product,
    streams: Streams,
    rings: Floats,
    taps: Taps,
    norm: Norm,
    rounding: Rounding,
    out: Inputs,
) -> Floats:
    """Gate, depthwise convolution, normalisation and SiLU: ``encoder.Convolution`` between its two
    products. ``product`` (rows, 2 dim). ``rings`` (slots, places, dim) keep what has been gated, as
    in ``attend``. ``out`` (rows, dim); the steps."""
    kernel = len(taps.weight)
    steps, mixed = np.empty(len(out), np.float32), np.empty(out.shape[1], np.float32)
    row = np.empty_like(mixed)
    for stream in range(len(streams.slot)):
        ring, first = rings[streams.slot[stream]], streams.first[stream]
        begin = streams.bounds[stream]
        count = streams.bounds[stream + 1] - begin
        for i in range(count):
            _gate(product, begin + i, ring[(first + i) % len(ring)])
        for i in range(count):
            _copy(taps.bias, mixed)
            for k in range(kernel):
                frame = first + i - (kernel - 1) + k
                if frame >= 0:
                    _add_scaled(mixed, ring[frame % len(ring)], taps.weight[k])
            _normalise(mixed, row, norm)
            _silu(row)
            steps[begin + i] = _round(row, rounding, out[begin + i])
    return steps


@compiled
def convolve_bins(mel: Floats, taps: Taps, exists: Stretch, out: Floats) -> None:
    """The first stage of the subsampling: mel (frames, bins) to out (frames, bins, channels), a
    convolution over three frames and three bins with a stride of two, and ReLU. ``taps`` (3, 3,
    channels). Frames of ``out`` that do not exist are 0."""
    for t in range(len(out)):
        for b in range(out.shape[1]):
            row = out[t, b]
            row[:] = _ZERO
            if exists.begin <= t < exists.end:
                _copy(taps.bias, row)
                for i in range(3):
                    for k in range(max(0, 2 - 2 * b), min(3, len(mel[0]) + 2 - 2 * b)):
                        value, tap = mel[2 * t + i, 2 * b + k - 2], taps.weight[i, k]
                        for j in range(len(row)):
                            row[j] += value * tap[j]
                for j in range(len(row)):
                    row[j] = max(row[j], _ZERO)


@compiled
def convolve_channels(x: Floats, taps: Taps, out: Floats) -> None:
    """Of a later stage, the same but for ReLU over each channel of x (frames, bins, channels)."""
    for t in range(len(out)):
        for b in range(out.shape[1]):
            row = out[t, b]
            _copy(taps.bias, row)
            for i in range(3):
                for k in range(max(0, 2 - 2 * b), min(3, x.shape[1] + 2 - 2 * b)):
                    _add_scaled(row, x[2 * t + i, 2 * b + k - 2], taps.weight[i, k])


# -- a row -----------------------------------------------------------------------------------------


@compiled
def exponential(x: np.float32) -> np.float32:
    """e^x, within 3e-7 of it (Cephes, expf); e^-87 for less."""
    x = min(max(x, _LEAST_EXPONENT), _LARGEST_EXPONENT)
    power = np.floor(x * _LOG2_E + _HALF)
    x = x - power * _LN_2_HIGH - power * _LN_2_LOW
    y = ((((_C0 * x + _C1) * x + _C2) * x + _C3) * x + _C4) * x + _HALF
    y = y * x * x + x + _ONE
    return y * np.int32((np.int32(power) + _EXPONENT_BIAS) << _MANTISSA).view(np.float32)


@compiled
def _copy(row: Floats, out: Inputs) -> None:
    """As an assignment numba takes three seconds to compile it, with the words of its error."""
    for j in range(len(row)):
        out[j] = row[j]


@compiled
def _normalise(row: Floats, out: Floats, norm: Norm) -> None:
    """To ``out``, which is another row."""
    total = _ZERO
    for j in range(len(row)):
        total += row[j]
    mean = total / np.float32(len(row))
    squares = _ZERO
    for j in range(len(row)):
        squares += (row[j] - mean) * (row[j] - mean)
    scale = _ONE / np.sqrt(squares / np.float32(len(row)) + _EPSILON)
    weight, bias = norm.weight, norm.bias
    for j in range(len(row)):
        out[j] = (row[j] - mean) * scale * weight[j] + bias[j]


@compiled
def _round(row: Floats, rounding: Rounding, out: Inputs) -> np.float32:
    """To ``out``; the step."""
    if rounding.reach == _ZERO:
        _copy(row, out)
        return _ONE
    largest = np.int32(_largest_magnitude(row.view(np.int32))).view(np.float32)
    step = max(largest / rounding.reach, rounding.least)
    inverse = _ONE / step
    for j in range(len(row)):
        out[j] = np.uint8(np.int32(np.rint(row[j] * inverse) + rounding.zero))
    return step


@compiled
def _largest_magnitude(bits: NDArray[np.int32]) -> np.int32:
    """Of floats that are given as their bits; so is the answer. Bits are in the order of the
    magnitudes, and a largest integer is found in vectors, a largest float is not."""
    largest = np.int32(0)
    for j in range(len(bits)):
        largest = max(largest, np.int32(bits[j] & _MAGNITUDE))
    return largest


@compiled
def _silu(row: Floats) -> None:
    for j in range(len(row)):
        row[j] = row[j] / (_ONE + exponential(-row[j]))


@compiled
def _gate(product: Product, i: int, out: Floats) -> None:
    """GLU: the first half of row ``i``, times the logistic function of the second."""
    dim, row, step, bias = len(out), product.values[i], product.steps[i], product.bias
    for j in range(dim):
        gate = row[dim + j] * step + bias[dim + j]
        out[j] = (row[j] * step + bias[j]) / (_ONE + exponential(-gate))


@compiled
def _add_scaled(row: Floats, other: Floats, scale: Floats) -> None:
    for j in range(len(row)):
        row[j] += other[j] * scale[j]


# -- attention -------------------------------------------------------------------------------------


@compiled
def _keep(
    product: Product, row: int, count: int, head: int, keys: Floats, values: Floats, first: int
) -> None:
    size, places = keys.shape
    dim = len(product.bias) // 3
    key, value = dim + head * size, 2 * dim + head * size
    for i in range(count):
        place, step = (first + i) % places, product.steps[row + i]
        given, kept = product.values[row + i], values[place]
        for j in range(size):
            keys[j, place] = given[key + j] * step + product.bias[key + j]
        for j in range(size):
            kept[j] = given[value + j] * step + product.bias[value + j]


@compiled
def _queries(
    product: Product,
    row: int,
    count: int,
    heads: Heads,
    head: int,
    for_keys: Floats,
    for_places: Floats,
) -> None:
    """(c, size) each, with the scale of the scores."""
    size = for_keys.shape[1]
    scale, at = _ONE / np.sqrt(np.float32(size)), head * size
    bias_u, bias_v = heads.bias_u[head], heads.bias_v[head]
    for i in range(count):
        values, bias = product.values[row + i, at : at + size], product.bias[at : at + size]
        step = product.steps[row + i]
        for j in range(size):
            query = values[j] * step + bias[j]
            for_keys[i, j] = (query + bias_u[j]) * scale
            for_places[i, j] = (query + bias_v[j]) * scale


@compiled
def _weigh(by_key: Floats, by_place: Floats, window: Stretch, scores: Floats) -> None:
    """In place of the scores of a query with the keys, which are as the ring has them, the weights
    of their values: those of frames in the window, by their softmax, and 0. ``by_place``: scores
    with the positions, from the window's first frame on. ``scores`` has room for a window."""
    keys = window.end - window.begin
    start = window.begin % len(by_key)
    ahead = min(keys, len(by_key) - start)
    top = _LEAST
    for t in range(ahead):
        scores[t] = by_key[start + t] + by_place[t]
    for t in range(ahead, keys):
        scores[t] = by_key[t - ahead] + by_place[t]
    for t in range(keys):
        top = max(top, scores[t])
    total = _ZERO
    for t in range(keys):
        scores[t] = exponential(scores[t] - top)
        total += scores[t]
    by_key[:] = _ZERO
    for t in range(ahead):
        by_key[start + t] = scores[t] / total
    for t in range(ahead, keys):
        by_key[t - ahead] = scores[t] / total
