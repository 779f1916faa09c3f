"""An engine's deltas as frames: nothing twice, nothing lost, nothing malformed."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.protocol.engine_delta import FINAL, JUDGEMENT, WORDS, DeltaReader, DeltaWriter
from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.recognition import Final, Update, Word

quick = settings(deadline=None, max_examples=60)
HELLO = Word("Héllo", 100, 700, 0.9, True)
YOU = Word("you", 700, 900, 0.5)
probabilities = st.floats(0, 1)


def update(segment, position, words=(), *judgement):
    return Update(segment, position, (), words, position, *judgement)


def plain(answer, kept, words):
    """The frame as the module describes it, piece by piece; all that may be left out is there."""
    final = isinstance(answer, Final)
    speech = () if final else answer.speech
    position = answer.at if final else answer.position
    decoded = answer.at if final else answer.decoded
    language = answer.language
    parts = [
        struct.pack("<BIQIH", 3 + 4 * final, answer.segment, position, position - decoded,
                    len(speech)),
        bytes(math.floor(each * 255 + 0.5) for each in speech),
        struct.pack("<dd", answer.end_of_turn_confidence, answer.language_confidence),
        struct.pack("<h", -1 if language is None else len(language.encode())),
        b"" if language is None else language.encode(),
        struct.pack("<II", kept, len(words)),
    ]  # fmt: skip
    for word in words:
        text = word.text.encode()
        length = word.end - word.start
        parts.append(struct.pack("<QIdB", word.start, length, word.confidence, word.final))
        parts.append(struct.pack("<I", len(text)) + text)
    return b"".join(parts)


def test_the_frames_are_as_described():
    writer = DeltaWriter()
    first = Update(2, 1_600, (0.0, 0.5, 1.0), (HELLO, YOU), 1_000, 0.25, "de", 0.75)
    assert writer.write(first) == plain(first, 0, (HELLO, YOU))
    longer = Update(2, 3_200, (0.2,), (HELLO, Word("your", 700, 950, 0.5)), 3_200, 0.5, None, 0.0)
    assert writer.write(longer) == plain(longer, 1, longer.words[1:])
    final = Final(2, 3_000, (HELLO,), 0.9, "", 0.0)
    assert writer.write(final) == plain(final, 1, ())


def test_unchanged_values_are_not_sent_and_keep_their_identity():
    writer, reader = DeltaWriter(), DeltaReader()
    first = reader.read(writer.write(update(0, 1_600, (HELLO, YOU), 0.5, "en", 0.9)))
    frame = writer.write(update(0, 3_200, (HELLO, Word("you", 700, 900, 0.5)), 0.5, "en", 0.9))
    assert len(frame) == struct.calcsize("<BIQIH")
    second = reader.read(frame)
    assert second == update(0, 3_200, (HELLO, YOU), 0.5, "en", 0.9)
    assert second.words is first.words
    third = reader.read(writer.write(update(0, 4_800, (HELLO, Word("yours", 700, 990, 0.5)))))
    assert third.words[0] is first.words[0]


def test_a_new_segment_begins_with_nothing():
    writer, reader = DeltaWriter(), DeltaReader()
    reader.read(writer.write(update(0, 1_600, (HELLO,), 0.5, "en", 0.9)))
    assert reader.read(writer.write(update(1, 3_200))) == update(1, 3_200)
    assert reader.read(writer.write(update(1, 4_800, (HELLO,)))).words == (HELLO,)


@quick
@given(st.lists(probabilities, max_size=300))
def test_speech_is_within_half_a_step(speech):
    decoded = DeltaReader().read(DeltaWriter().write(Update(0, 0, tuple(speech), (), 0))).speech
    assert len(decoded) == len(speech)
    assert all(abs(a - b) <= 0.5 / 255 + 1e-9 for a, b in zip(decoded, speech, strict=True))


@pytest.mark.parametrize(
    "answer",
    [
        update(0, 0, (), math.nan),
        update(0, 0, (), 0.0, "en", math.inf),
        update(0, 0, (Word("a", 0, 1, math.nan),)),
        update(0, 0, (Word("a", 2, 1, 0.5),)),
        update(0, 0, (Word("a", -1, 1, 0.5),)),
        update(0, 0, (Word("\ud800", 0, 1, 0.5),)),
        update(0, -1),
        Update(0, 100, (), (), 101),
        Update(0, 100, (1.5,), (), 100),
        Final(-1, 0, ()),
    ],
    ids=str,
)
def test_what_has_no_place_on_the_wire_is_a_bug_of_ours(answer):
    with pytest.raises(LocalProtocolError):
        DeltaWriter().write(answer)


GOOD = Update(0, 100, (0.2,), (Word("a", 0, 1, 0.5, True),), 90, 0.5, "en", 1.0)


def frame_with(what=WORDS | JUDGEMENT, behind=10, size=2, kept=0, count=1, final=1,
               confidence=0.5, judged=0.5, language=b"en", text=b"a", rest=b""):  # fmt: skip
    return b"".join(
        [
            struct.pack("<BIQIH", what, 0, 100, behind, 1), b"\x33",
            struct.pack("<ddh", judged, 1.0, size), language,
            struct.pack("<II", kept, count),
            struct.pack("<QIdBI", 0, 1, confidence, final, 1), text, rest,
        ]
    )  # fmt: skip


def test_a_good_frame_is_read():
    assert DeltaReader().read(frame_with()) == GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {"what": 0}, {"what": WORDS}, {"what": 11}, {"what": 7}, {"what": 255}, {"behind": 101},
        {"size": -2}, {"size": 3}, {"size": 3_000}, {"language": b"\xff\xfe"}, {"text": b"\xff"},
        {"kept": 1}, {"count": 2}, {"count": 2**32 - 1}, {"count": 0},
        {"final": 2}, {"confidence": math.nan}, {"confidence": -math.inf},
        {"judged": math.nan}, {"judged": math.inf}, {"text": b""}, {"rest": b"x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_gateway_takes_nothing_that_is_malformed(changes):
    with pytest.raises(PeerFault):
        DeltaReader().read(frame_with(**changes))


@pytest.mark.parametrize("size", range(len(frame_with())))
def test_nothing_of_a_frame_may_be_missing(size):
    reader = DeltaReader()
    with pytest.raises(PeerFault):
        reader.read(frame_with()[:size])
    assert reader.read(frame_with()) == GOOD


def test_a_final_has_neither_speech_nor_delay():
    assert DeltaReader().read(struct.pack("<BIQIH", FINAL, 3, 100, 0, 0)) == Final(3, 100, ())
    for behind, count in ((1, 0), (0, 1)):
        with pytest.raises(PeerFault):
            DeltaReader().read(struct.pack("<BIQIH", FINAL, 3, 100, behind, count) + bytes(count))
