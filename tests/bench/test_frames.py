"""Our own WebSocket frames, against wsproto's server."""

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from ssasr.bench.frames import (
    BINARY,
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
