"""Our own WebSocket frames, against wsproto's server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request, TextMessage

from ssasr.bench.frames import (
    BINARY,
    CLOSE,
    TEXT,
    Frame,
    FrameReader,
    WireError,
    check_answer,
    encode_frame,
    handshake,
)

KEY = bytes(range(16))


def shaken_hands():
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(handshake("host:1", "/v3/ws?a=b", KEY, {"Authorization": "k"}))
    (request,) = server.events()
    assert isinstance(request, Request)
    assert request.target == "/v3/ws?a=b"
    assert (b"authorization", b"k") in request.extra_headers
    return server, server.send(AcceptConnection())


def test_the_handshake_is_one_that_a_server_accepts_and_its_answer_fits():
    _, answer = shaken_hands()
    check_answer(answer.partition(b"\r\n\r\n")[0], KEY)


@pytest.mark.parametrize("head", [b"HTTP/1.1 503 Full", b"", b"HTTP/1.1 101 Hm\r\nA: b"])
def test_any_other_answer_is_refused(head):
    with pytest.raises(WireError):
        check_answer(head, KEY)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 3_200, 65_535, 65_536, 100_000])
def test_a_server_reads_our_frames(size):
    server, _ = shaken_hands()
    payload = bytes(i % 251 for i in range(size))
    server.receive_data(encode_frame(BINARY, payload))
    got = b"".join(
        bytes(event.data) for event in server.events() if isinstance(event, BytesMessage)
    )
    assert got == payload


@given(st.lists(st.text(max_size=300), max_size=6), st.data())
def test_we_read_a_server_s_frames_however_they_are_cut(texts, data):
    server, _ = shaken_hands()
    stream = b"".join(server.send(TextMessage(text)) for text in texts)
    stream += server.send(CloseConnection(3005, "why"))
    reader, frames, at = FrameReader(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        frames += reader.feed(stream[at : at + step])
        at += step
    assert frames[:-1] == [Frame(TEXT, text.encode()) for text in texts]
    assert (frames[-1].opcode, frames[-1].close_code) == (CLOSE, 3005)


def test_a_message_in_pieces_is_one_message():
    pieces = b"\x01\x02ab" + b"\x00\x01c" + b"\x80\x01d"
    assert list(FrameReader().feed(pieces)) == [Frame(TEXT, b"abcd")]


def test_a_masked_frame_is_an_error():
    with pytest.raises(WireError):
        list(FrameReader().feed(encode_frame(TEXT, b"x")))


def test_a_message_beyond_the_limit_is_refused_before_it_has_come():
    server, _ = shaken_hands()
    reader = FrameReader(limit=100)
    assert len(list(reader.feed(server.send(TextMessage("x" * 100))))) == 1
    with pytest.raises(WireError):
        list(reader.feed(server.send(TextMessage("x" * 70_000))[:10]))
