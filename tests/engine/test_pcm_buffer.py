"""The kept audio: whatever pieces it came in, any stretch of it comes out as it went in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.pcm_buffer import SHORT_PIECE, PcmBuffer
from ssasr.protocol.recognition import SAMPLE_RATE

START, LONGEST = 12_345, 5_000
EVERYTHING = np.random.default_rng(0).integers(-32_768, 32_767, 9 * SAMPLE_RATE).astype("<i2")
SIZES = st.one_of(st.integers(1, 50), st.integers(1, LONGEST))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_cut_out_is_what_was_put_in(data):
    buffer, put = PcmBuffer(START), 0
    for size in data.draw(st.lists(SIZES, max_size=20)):
        buffer.append(EVERYTHING[put : put + size].tobytes())
        put += size
        if data.draw(st.booleans()):
            before = data.draw(st.integers(buffer.kept_from, buffer.end))
            buffer.discard_before(before)
            assert before - SAMPLE_RATE - SHORT_PIECE - LONGEST <= buffer.kept_from <= before
        first = data.draw(st.integers(buffer.kept_from, buffer.end))
        upto = data.draw(st.integers(first, buffer.end))
        expected = EVERYTHING[first - START : upto - START].tobytes()
        assert b"".join(buffer.read(first, upto)) == expected
    assert buffer.end == START + put


def test_crumbs_are_put_together():
    buffer = PcmBuffer(0)
    for _ in range(10 * SHORT_PIECE):
        buffer.append(b"\1\0")
    assert len(buffer.read(0, 10 * SHORT_PIECE)) == 10
