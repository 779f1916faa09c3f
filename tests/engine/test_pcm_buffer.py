"""The kept audio: whatever pieces it came in, any stretch of it comes out as it went in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.pcm_buffer import SHORT, Tape
from ssasr.protocol.recognition import SAMPLE_RATE

START, LONGEST = 12_345, 5_000
EVERYTHING = np.random.default_rng(0).integers(-32_768, 32_767, 9 * SAMPLE_RATE).astype("<i2")
SIZES = st.one_of(st.integers(1, 50), st.integers(1, LONGEST))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_cut_out_is_what_was_put_in(data):
    tape, put = Tape(START), 0
    for size in data.draw(st.lists(SIZES, max_size=20)):
        tape.append(EVERYTHING[put : put + size].tobytes())
        put += size
        if data.draw(st.booleans()):
            before = data.draw(st.integers(tape.kept_from, tape.end))
            tape.let_go(before)
            assert before - SAMPLE_RATE - SHORT - LONGEST <= tape.kept_from <= before
        first = data.draw(st.integers(tape.kept_from, tape.end))
        upto = data.draw(st.integers(first, tape.end))
        expected = EVERYTHING[first - START : upto - START].tobytes()
        assert b"".join(tape.cut(first, upto)) == expected
    assert tape.end == START + put


def test_crumbs_are_put_together():
    tape = Tape(0)
    for _ in range(10 * SHORT):
        tape.append(b"\1\0")
    assert len(tape.cut(0, 10 * SHORT)) == 10
