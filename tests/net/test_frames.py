"""Plain frames ahead of the library: the same messages, whatever the bytes and however cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import CLIENT, SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ssasr.net.frames import LONGEST, FrameSplitter, apply_mask, encode_message, encode_ping

quick = settings(deadline=None, max_examples=80)


KEY = b"\x01\xfe\x10\x9a"


@quick
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_mask_is_its_own_inverse_and_that_of_the_rfc(data, mask):
    masked = apply_mask(data, mask) if data else b""
    assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("text", [True, False])
def test_the_library_reads_what_we_write(client, size, text):
    message = "é" * (size // 2) if text else bytes(range(256)) * (size // 256 + 1)
    reader = Connection(SERVER if client else CLIENT)
    reader.receive_data(encode_message(message, KEY if client else None))
    events = list(reader.events())
    whole = "" if text else b""
    assert whole.join(event.data for event in events) == message
    assert events[-1].message_finished


def test_the_library_takes_our_ping_and_we_know_its_pong():
    reader = Connection(SERVER)
    reader.receive_data(encode_ping(KEY))
    (ping,) = reader.events()
    assert ping == Ping(payload=b"")
    (piece,) = FrameSplitter(masked=False).feed(bytes(reader.send(ping.response())))
    assert piece.is_our_pong
    (piece,) = FrameSplitter(masked=False).feed(bytes(reader.send(Pong(payload=b"1"))))
    assert not piece.is_our_pong


def event_parts(message, parts):
    """A message as the events that say it in so many frames."""
    kind = TextMessage if isinstance(message, str) else BytesMessage
    step = max(len(message) // parts, 1)
    cut = [message[i * step : (i + 1) * step] for i in range(parts - 1)]
    cut.append(message[(parts - 1) * step :])
    return [kind(data=part, message_finished=i == parts - 1) for i, part in enumerate(cut)]


sayings = st.one_of(
    st.builds(event_parts, st.binary(max_size=200), st.integers(1, 3)),
    st.builds(event_parts, st.text(max_size=60), st.integers(1, 3)),
    st.builds(lambda size: event_parts(bytes(size), 1), st.sampled_from([70_000, LONGEST + 1])),
    st.builds(lambda data: [Ping(payload=data)], st.binary(max_size=10)),
)


class Joined:
    """What the library makes of bytes: messages, and control frames."""

    def __init__(self):
        self.library, self.parts, self.found = Connection(SERVER), [], []

    def read(self, data):
        self.library.receive_data(data)
        for event in self.library.events():
            if isinstance(event, Ping):
                self.found.append(bytes(event.payload))
                continue
            self.parts.append(event.data)
            if event.message_finished:
                self.found.append(event.data[:0].join(self.parts))
                self.parts = []


@quick
@given(st.lists(sayings, max_size=6), st.lists(st.floats(0, 1), max_size=6))
def test_cut_anywhere_every_message_is_delivered_once_and_in_order(said, cuts):
    writer, together = Connection(CLIENT), Joined()
    raw = b"".join(bytes(writer.send(event)) for events in said for event in events)
    together.read(raw)
    at = sorted(int(cut * len(raw)) for cut in cuts)
    cutter, both, passed, ends = FrameSplitter(masked=True), Joined(), b"", 0
    for start, end in zip([0, *at], [*at, len(raw)], strict=True):
        for piece in cutter.feed(raw[start:end]):
            passed += piece.raw
            ends += piece.ends
            if piece.message is None:
                both.read(piece.raw)
            else:
                both.found.append(piece.message)
    assert passed == raw, "every byte is somebody's"
    assert both.found == together.found
    assert ends == sum(not isinstance(events[0], Ping) for events in said)


BROKEN = {
    "unmasked": encode_message(b"x", None),
    "reserved bit": bytes([0xC2]) + encode_message(b"x", KEY)[1:],
    "reserved opcode": bytes([0x83]) + encode_message(b"x", KEY)[1:],
    "continues nothing": bytes([0x80]) + encode_message(b"x", KEY)[1:],
    "fragmented ping": bytes([0x09]) + encode_ping(KEY)[1:],
    "long form of a short length": bytes([0x82, 0xFE, 0, 1]) + KEY + b"x",
    "longer form of a short length": bytes([0x82, 0xFF, *bytes(7), 200]) + KEY + b"x" * 200,
    "long ping": bytes([0x89, 0xFE, 0, 126]) + KEY + bytes(126),
    "no UTF-8": encode_message(b"\xff\xff", KEY).replace(b"\x82", b"\x81", 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_the_librarys_to_judge(name):
    cutter = FrameSplitter(masked=True)
    raw = BROKEN[name] + encode_message(b"after", KEY)
    pieces = cutter.feed(raw)
    assert b"".join(piece.raw for piece in pieces) == raw
    assert pieces[0].message is None
    library = Connection(SERVER)
    for piece in pieces:
        library.receive_data(piece.raw)
    (verdict,) = library.events()
    assert isinstance(verdict, CloseConnection)
    assert verdict.code in {1002, 1007}


def test_nothing_is_delivered_after_a_close():
    writer = Connection(CLIENT)
    raw = writer.send(CloseConnection(code=1000)) + encode_message(b"late", KEY)
    assert all(piece.message is None for piece in FrameSplitter(masked=True).feed(raw))


def test_a_frame_byte_by_byte():
    cutter, raw = FrameSplitter(masked=True), encode_message(b"whole", KEY)
    pieces = [piece for byte in raw for piece in cutter.feed(bytes([byte]))]
    assert [piece.message for piece in pieces] == [b"whole"]


@pytest.mark.parametrize("message", [b"", b"1", "é" * 50, bytes(125), bytes(126), bytes(65_535)])
@pytest.mark.parametrize("key", [None, KEY, bytes(4)])
def test_one_read_one_frame(message, key):
    cutter, raw = FrameSplitter(masked=key is not None), encode_message(message, key)
    assert cutter.whole(raw) == message
    (piece,) = cutter.feed(raw)
    assert (piece.raw, piece.message, piece.ends) == (raw, message, True)
    assert cutter.whole(raw + b"\x82") is None
    assert cutter.whole(raw[:-1]) is None
    cutter.feed(raw[:1])
    assert cutter.whole(raw) is None, "it would stand in the middle of another"


@pytest.mark.parametrize("name", BROKEN)
def test_nothing_broken_is_whole(name):
    assert FrameSplitter(masked=True).whole(BROKEN[name]) is None
