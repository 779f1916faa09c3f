"""Decoding: the same samples for the same bytes, however they are cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.audio.decoding import make_decoder
from ssasr.audio.pcm import alaw_table, mulaw_table
from ssasr.protocol.parameters import parse_parameters


def decoded(query, pieces):
    decoder = make_decoder(parse_parameters(query))
    return np.frombuffer(b"".join([*map(decoder.decode, pieces), decoder.flush()]), "<i2")


def cut(data, cuts):
    """``data`` in pieces at ``cuts``, empty ones among them."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def tone(rate, seconds=0.5, hertz=440):
    return np.rint(np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate) * 12_000)


QUERIES = [
    f"encoding={encoding}&sample_rate={rate}"
    for encoding in ("pcm_s16le", "pcm_mulaw", "pcm_alaw")
    for rate in (8_000, 16_000, 22_050, 48_000)
]


@settings(deadline=None)
@given(
    st.sampled_from(QUERIES),
    st.binary(max_size=3_000),
    st.lists(st.integers(0, 3_000), max_size=20),
)
def test_any_cut_gives_the_same_samples(query, data, cuts):
    assert np.array_equal(decoded(query, cut(data, cuts)), decoded(query, [data]))


def test_byte_by_byte():
    data = tone(8_000, 0.1).astype("<i2").tobytes()
    pieces = [bytes([byte]) for byte in data]
    query = "sample_rate=8000"
    assert np.array_equal(decoded(query, pieces), decoded(query, [data]))


def test_16_khz_is_handed_through_and_an_odd_byte_dropped_at_the_end():
    samples = np.arange(-500, 500, dtype="<i2")
    assert np.array_equal(decoded("", [samples.tobytes() + b"\x01"]), samples)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_the_tone_and_its_length(rate):
    out = decoded(f"sample_rate={rate}", [tone(rate).astype("<i2").tobytes()])
    expected = tone(16_000)
    assert abs(len(out) - len(expected)) <= 1
    middle = slice(1_000, 7_000)  # away from the edges, where the filter sees zeros
    assert np.abs(out[middle] - expected[middle]).max() < 40


def test_loud_audio_is_clipped_not_wrapped():
    square = np.repeat(np.array([32_767, -32_768] * 20, dtype="<i2"), 50)
    out = decoded("sample_rate=8000", [square.tobytes()]).astype(int)
    signs = np.sign(np.repeat(square, 2).astype(int))
    settled = slice(20, 80)
    assert (np.sign(out[settled]) == signs[settled]).all()


def test_alaw_values():
    """The end points of G.711's table, and that it is odd; its codes are monotone without the
    mask 0x55."""
    table = alaw_table().astype(int)
    assert [table[code] for code in (0xAA, 0x2A, 0xD5, 0x55)] == [32_256, -32_256, 8, -8]
    assert (table[:128] == -table[128:]).all()
    assert (np.diff(table[128 + (np.arange(128) ^ 0x55)]) > 0).all()


def test_mulaw_values():
    """The end points of G.711's table, and that it is odd and monotone."""
    table = mulaw_table().astype(int)
    assert [table[code] for code in (0x00, 0x80, 0x7F, 0xFF, 0x8F, 0xEF)] == [
        -32_124,
        32_124,
        0,
        0,
        16_764,
        132,
    ]
    assert (table[:128] == -table[128:]).all()
    assert (np.diff(table[:128]) > 0).sum() == 127
