"""Why there is no connection, in a line that says what to do."""

import ssl

import pytest
import trio
import trustme

from ssasr.client.connection import ClientError, open_session
from ssasr.net import websocket_client


async def refusal(url, nursery, serve):
    """What a client says whose connection is given to ``serve``."""
    listeners = await nursery.start(
        trio.serve_tcp,
        serve,
        0,
    )
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(ClientError) as refused:
        async with open_session(url.format(port), {}):
            pass
    nursery.cancel_scope.cancel()
    return str(refused.value)


def tls_of(authority, *names):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)

    async def serve(stream):
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            await tls.do_handshake()
            await tls.receive_some(1)
        except trio.BrokenResourceError:
            await tls.aclose()

    return serve


async def speaks_something_else(stream):
    await stream.receive_some(1)
    await stream.send_all(b"220 mail.example ESMTP\r\n\r\n")
    await stream.receive_some(65_536)


async def closes(stream):
    await stream.receive_some(1)


async def refuses_plain_text(stream):
    await stream.receive_some(65_536)
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


async def waits(stream):
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("address", "serve", "words"),
    [
        ("ws://localhost:{}", speaks_something_else, "no HTTP server; if it speaks TLS"),
        ("ws://localhost:{}", closes, "without an answer; if it speaks TLS"),
        ("ws://localhost:{}", tls_of(trustme.CA(), "localhost"), "begins with wss://"),
        ("ws://localhost:{}", refuses_plain_text, "HTTP 400; does the port speak TLS?"),
        ("wss://localhost:{}", speaks_something_else, "not speak TLS there"),
        ("wss://localhost:{}", closes, "during the TLS handshake"),
        ("wss://localhost:{}", tls_of(trustme.CA(), "localhost"), "SSL_CERT_FILE=ca.pem"),
    ],
)  # fmt: skip
async def test_what_to_do(address, serve, words):
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            assert words in await refusal(address, nursery, serve)


async def test_another_name_than_the_certificates(monkeypatch, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with trio.open_nursery() as nursery:
        serve = tls_of(authority, "elsewhere.example")
        said = await refusal("wss://localhost:{}", nursery, serve)
    assert "not valid for 'localhost'" in said
    assert "SSL_CERT_FILE" not in said


async def test_no_answer_at_all(autojump_clock, monkeypatch):
    for address in ("ws://localhost:{}", "wss://localhost:{}"):
        async with trio.open_nursery() as nursery:
            said = await refusal(address, nursery, waits)
        assert f"no answer within {websocket_client.OPEN_DEADLINE:.0f} s" in said
        assert ("ws://" in said.partition(";")[2]) == address.startswith("wss")
