"""Plain frames ahead of the library: the same messages, whatever the bytes and however cut."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import events as library
from wsproto.connection import CLIENT, SERVER, Connection

from ssasr.net.frames import (
    Close,
    FrameReader,
    Ping,
    apply_mask,
    encode_close,
    encode_message,
    encode_ping,
)

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
    peer = Connection(SERVER)
    peer.receive_data(encode_ping(KEY))
    (ping,) = peer.events()
    assert ping == library.Ping(payload=b"")
    assert client_reader().feed(bytes(peer.send(ping.response()))) == []


def client_reader(limit=1 << 20):
    return FrameReader(masked=False, limit=limit)


def server_reader(limit=1 << 20):
    return FrameReader(masked=True, limit=limit)


def event_parts(message, parts):
    """A message as the events that say it in so many frames."""
    kind = library.TextMessage if isinstance(message, str) else library.BytesMessage
    step = max(len(message) // parts, 1)
    cut = [message[i * step : (i + 1) * step] for i in range(parts - 1)]
    cut.append(message[(parts - 1) * step :])
    return [kind(data=part, message_finished=i == parts - 1) for i, part in enumerate(cut)]


sayings = st.one_of(
    st.builds(event_parts, st.binary(max_size=200), st.integers(1, 3)),
    st.builds(event_parts, st.text(max_size=60), st.integers(1, 3)),
    st.builds(lambda size: event_parts(bytes(size), 1), st.sampled_from([70_000, 200_000])),
    st.builds(lambda data: [library.Ping(payload=data)], st.binary(max_size=10)),
)


def meant(said):
    """What events say, joined."""
    if isinstance(said[0], library.Ping):
        return Ping(bytes(said[0].payload))
    return said[0].data[:0].join(event.data for event in said)


@quick
@given(st.lists(sayings, max_size=6), st.lists(st.floats(0, 1), max_size=6))
def test_cut_anywhere_all_that_was_said_is_read_once_and_in_order(said, cuts):
    writer = Connection(CLIENT)
    raw = b"".join(bytes(writer.send(event)) for events in said for event in events)
    at = sorted(int(cut * len(raw)) for cut in cuts)
    reader = server_reader()
    read = [
        event
        for start, end in zip([0, *at], [*at, len(raw)], strict=True)
        for event in reader.feed(raw[start:end])
    ]
    assert read == [meant(events) for events in said]


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
def test_what_breaks_a_rule_is_named_as_the_library_names_it(name):
    raw = BROKEN[name] + encode_message(b"after", KEY)
    (verdict,) = server_reader().feed(raw)
    peer = Connection(SERVER)
    peer.receive_data(raw)
    (expected,) = peer.events()
    assert verdict.fault
    assert verdict.code == expected.code


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 1_005), (b"\x03\xe8bye", 1_000), (b"\x0b\xb8", 3_000), (b"\x03", 1_002),
     (b"\x03\xed", 1_002), (b"\x03\xe8\xff", 1_007)],
)  # fmt: skip
def test_close_codes(payload, code):
    frame = bytes([0x88, 0x80 | len(payload)]) + KEY + apply_mask(payload + bytes(4), KEY)
    (close,) = server_reader().feed(frame[: 6 + len(payload)])
    assert (close.code, close.fault) == (code, code in {1_002, 1_007})


def test_nothing_is_read_after_a_close():
    writer = Connection(CLIENT)
    raw = writer.send(library.CloseConnection(code=1000)) + encode_message(b"late", KEY)
    assert server_reader().feed(raw) == [Close(1000)]


def test_a_close_reason_is_cut_to_what_fits():
    (close,) = client_reader().feed(encode_close(4_000, "é" * 100, None))
    assert close == Close(4_000, "é" * 61)


def test_a_frame_byte_by_byte():
    reader, raw = server_reader(), encode_message(b"whole" * 100, KEY)
    assert [each for byte in raw for each in reader.feed(bytes([byte]))] == [b"whole" * 100]


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("text", [True, False])
def test_of_a_message_that_is_too_long_the_beginning_is_read_and_the_next_whole(fragments, text):
    message = "x" * 1_000 if text else bytes(1_000)
    writer, reader = Connection(CLIENT), server_reader(limit=100)
    parts = [*event_parts(message, fragments), *event_parts(b"next", 1)]
    raw = b"".join(bytes(writer.send(event)) for event in parts)
    read = [each for at in range(0, len(raw), 7) for each in reader.feed(raw[at : at + 7])]
    assert read == [message[:101], b"next"]


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_message_in_endless_fragments_takes_no_more_than_a_long_one(content):
    """Whether they are empty or beyond the limit."""
    reader = server_reader(limit=100)
    first, more = (bytes([byte, 0x80 | len(content)]) + bytes(4) + content for byte in (2, 0))
    reader.feed(first + more * 200)
    tracemalloc.start()
    for _ in range(100):
        reader.feed(more * 200)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 20_000


@pytest.mark.parametrize("message", [b"", b"1", "é" * 50, bytes(125), bytes(126), bytes(65_535)])
@pytest.mark.parametrize("key", [None, KEY, bytes(4)])
def test_one_read_one_frame(message, key):
    reader = FrameReader(masked=key is not None, limit=1 << 20)
    assert reader.feed(encode_message(message, key)) == [message]
