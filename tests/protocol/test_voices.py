"""Who speaks when, on the link."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol.engine_delta import DeltaReader, DeltaWriter
from ssasr.protocol.engine_wire import decode, encode
from ssasr.protocol.faults import PeerFault
from ssasr.protocol.recognition import Final, Open, Opened, StreamOptions, Update
from ssasr.protocol.voices import CONTEXT, Run, Voice, Voices, read_voices, write_voices


@st.composite
def windows(draw):
    start = draw(st.integers(0, 10**9))
    length = draw(st.integers(1, CONTEXT))
    voices = []
    for _ in range(draw(st.integers(0, 3))):
        ends = sorted(draw(st.sets(st.integers(0, length), max_size=6)))
        pairs = list(zip(ends[::2], ends[1::2], strict=False))
        runs = tuple(Run(start + a, start + b, draw(st.booleans())) for a, b in pairs)
        clean = draw(st.integers(0, length))
        voices.append(
            Voice(runs, clean, draw(st.binary(max_size=40)) * 2, draw(st.integers(0, 255)))
        )
    return Voices(start, start + length, tuple(voices))


@given(windows())
def test_a_window_comes_out_as_it_went_in(window):
    frame = write_voices(window)
    assert read_voices(b"before" + frame, 6) == (window, 6 + len(frame))


@given(windows(), st.booleans())
def test_it_travels_with_the_answer_and_only_once(window, final):
    writer, reader = DeltaWriter(), DeltaReader()
    kind = Final(0, window.end, (), voices=(window,)) if final else None
    answer = kind or Update(0, window.end, (), (), window.end, voices=(window,))
    assert reader.read(writer.write(answer)) == answer
    silent = Update(0, window.end + 1, (), (), window.end)
    assert reader.read(writer.write(silent)) == silent


WINDOW = Voices(0, 1_000, (Voice((Run(0, 500),), 400, b"ab"),))


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<QIB", 5, 6, 0),
        struct.pack("<QIBBIHHII", 1_000, 1_000, 1, 0, 0, 0, 1, 500, 500),
        struct.pack("<QIBBIHHII", 1_000, 1_000, 1, 0, 0, 0, 1, 500, 1_001),
        struct.pack("<QIBBIHH", 1_000, 1_000, 1, 0, 1_001, 0, 0),
        struct.pack("<QIBBIHH", 1_000, 1_000, 1, 0, 0, 3, 0) + b"abc",
        struct.pack("<QIBBIHH", 1_000, 1_000, 1, 0, 0, 4, 0) + b"ab",
        write_voices(WINDOW)[:-3],
    ],
)
def test_what_makes_no_sense_is_the_peers_fault(frame):
    head = struct.pack("<BIQIH", 8, 0, 2_000, 0, 0) + b"\x01"
    with pytest.raises(PeerFault):
        DeltaReader().read(head + frame)


@pytest.mark.parametrize("position", [999, 1_000])
def test_no_window_ends_after_the_answer(position):
    frame = struct.pack("<BIQIH", 8, 0, position, 0, 0) + b"\x02" + 2 * write_voices(WINDOW)
    if position == 1_000:
        assert len(DeltaReader().read(frame).voices) == 2
    else:
        with pytest.raises(PeerFault, match="in their order"):
            DeltaReader().read(frame)


def test_what_is_asked_for_and_what_is_there():
    opening = Open("s", StreamOptions(speakers=True), 3, CONTEXT, context=CONTEXT)
    assert decode(encode(opening)) == opening
    opened = Opened("m", 1_600, "e", speakers=True)
    assert decode(encode(opened)) == opened
    plain = encode(Open("s", StreamOptions())) + encode(Opened("m", 1_600))
    assert "speakers" not in plain
    assert "context" not in plain


@pytest.mark.parametrize(("start", "context"), [(100, 101), (10**6, CONTEXT + 1), (100, -1)])
def test_context_is_before_the_start_and_no_longer_than_a_window(start, context):
    with pytest.raises(PeerFault):
        decode(encode(Open("s", StreamOptions(), 0, start, context=context)))
