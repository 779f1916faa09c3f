"""The engine's port: who is admitted, who is rejected and why, and how it ends."""

import json

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.net.websocket_client import connect_websocket
from ssasr.protocol.engine_link import PATH, SUBPROTOCOL
from ssasr.protocol.recognition import Audio, Open, StreamOptions, Update
from tests.contracts.engine_link import say, until
from tests.harness.clients import speech_like
from tests.harness.engines import VERSION, engine_server

OPENING = Open("session", StreamOptions())
SECOND = speech_like(1.0).astype("<i2").tobytes()


async def handshake(client, *, path=PATH, subprotocols=(SUBPROTOCOL,), version=VERSION):
    """The rejection, by whoever rejects."""
    headers = [(b"X-Model-Version", version.encode())] if version else []
    url = f"ws://{client.address.netloc}{path}"
    with pytest.raises(ConnectionRejected) as rejected:
        async with connect_websocket(url, headers=headers, subprotocols=subprotocols):
            pass
    error = rejected.value
    return error.status_code, dict(error.headers), error.body.decode()


async def get(client, path, version=None):
    """Status and body of a plain request."""
    stream = await trio.open_tcp_stream(client.address.host, client.address.port)
    async with stream:
        extra = f"X-Model-Version: {version}\r\n" if version else ""
        head = f"GET {path} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n{extra}\r\n"
        await stream.send_all(head.encode())
        answer = b"".join([chunk async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def test_another_version_of_the_protocol_is_refused_by_name():
    async with engine_server() as (_, client):
        status, _, body = await handshake(client, subprotocols=["ssasr.engine.v9"])
        assert status == 400
        assert SUBPROTOCOL in body
        assert "ssasr.engine.v9" in body
        assert (await handshake(client, subprotocols=[]))[0] == 400


async def test_only_who_knows_the_secret_gets_a_stream():
    async with engine_server() as (server, client):
        server.secret = "a secret of the house"
        for wrong in (None, server.secret[:-1], server.secret + "s", "ein Schlüssel"):
            client.secret = wrong
            with pytest.raises(EngineUnavailable, match="401"):
                async with client.open_stream(VERSION, OPENING):
                    pass
        client.secret = server.secret
        async with client.open_stream(VERSION, OPENING) as stream:
            assert stream.opened.model == "scripted"


async def test_another_model_or_path_is_not_there():
    async with engine_server() as (_, client):
        assert (await handshake(client, version="ml-default"))[0] == 404
        assert (await handshake(client, path="/"))[0] == 404
        assert (await get(client, "/ready", "ml-default"))[0] == 404
        assert (await get(client, "/ready", VERSION))[0] == 200
        with pytest.raises(EngineUnavailable, match="en-default"):
            async with client.open_stream("ml-default", OPENING):
                pass


async def test_an_engine_without_a_version_takes_any():
    async with engine_server(version=None) as (_, client):
        async with client.open_stream("whatever", OPENING) as stream:
            assert stream.opened.model == "scripted"


async def test_a_full_engine_says_so_at_once():
    async with engine_server(max_streams=1) as (_, client):
        async with client.open_stream(VERSION, OPENING) as stream:
            started = trio.current_time()
            status, headers, _ = await handshake(client)
            assert status == 503
            assert headers[b"x-ssasr-refusal"] == b"full"
            with pytest.raises(EngineBusy):
                async with client.open_stream(VERSION, OPENING):
                    pass
            assert trio.current_time() - started < 5.0, "nothing is waited for"
            await say(stream, 0, 3_200)
            await until(stream, Update, 3_200)
            assert (await get(client, "/ready"))[0] == 200, "full is not ill"
            _, metrics = await get(client, "/metrics")
            assert 'ssasr_engine_streams{engine=""} 1.0' in metrics
            assert 'ssasr_engine_capacity{engine=""} 1.0' in metrics
            assert "ssasr_engine_load_ratio" in metrics
            assert 'ssasr_engine_refusals_total{reason="full"} 2.0' in metrics


async def test_a_starting_engine_says_so():
    async with engine_server(loaded=False) as (_, client):
        status, headers, _ = await handshake(client)
        assert (status, headers[b"x-ssasr-refusal"]) == (503, b"starting")
        assert (await get(client, "/ready"))[0] == 503
        assert (await get(client, "/health"))[0] == 200
        with pytest.raises(EngineUnavailable, match="starting"):
            async with client.open_stream(VERSION, OPENING):
                pass


async def test_a_draining_engine_takes_nobody_and_waits_for_those_it_has():
    async with engine_server(drain_seconds=60) as (server, client):
        async with client.open_stream(VERSION, OPENING) as stream:
            server.draining.set()
            await trio.testing.wait_all_tasks_blocked(0.05)
            status, headers, _ = await handshake(client)
            assert (status, headers[b"x-ssasr-refusal"]) == (503, b"draining")
            await say(stream, 0, 3_200)
            await until(stream, Update, 3_200)
        with trio.fail_after(60):  # it has left: the listener goes, long before the deadline
            while True:
                try:
                    await handshake(client)
                except OSError:
                    break
                await trio.sleep(0.02)


async def test_the_drain_has_a_deadline():
    async with engine_server(drain_seconds=0.2) as (server, client):
        async with client.open_stream(VERSION, OPENING) as stream:
            server.draining.set()
            with trio.fail_after(60), pytest.raises(EngineLost):
                while True:
                    await stream.receive()


async def test_a_peer_that_never_opens_loses_its_place(monkeypatch):
    monkeypatch.setattr("ssasr.engine.server.OPEN_SECONDS", 1.0)
    async with engine_server(max_streams=1) as (server, client):
        url = f"ws://{client.address.netloc}{PATH}"
        async with connect_websocket(url, subprotocols=[SUBPROTOCOL]) as websocket:
            assert server.host.scheduler.in_use == 1
            with trio.fail_after(60), pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason.code == 1002
        assert server.host.scheduler.in_use == 0


@pytest.mark.parametrize("frame", ["nonsense", b"1", json.dumps({"t": "z", "k": 3, "a": 0})])
async def test_nonsense_ends_the_link_and_nothing_else(frame):
    async with engine_server(max_streams=2) as (server, client):
        async with client.open_stream(VERSION, OPENING) as other:
            async with client.open_stream(VERSION, OPENING) as stream:
                await stream.websocket.send(frame)
                with trio.fail_after(60), pytest.raises(EngineLost, match="1002"):
                    await stream.receive()
            await other.send(Audio(0, SECOND))
            with trio.fail_after(60):
                await until(other, Update, 16_000)
        assert server.host.scheduler.in_use == 0


class Broken(ScriptedRecognizer):
    def new_state(self, *arguments):
        raise RuntimeError("device lost")


async def test_a_dead_model_ends_the_server():
    with pytest.raises(ExceptionGroup) as died, trio.fail_after(60):
        async with engine_server(recognizer=Broken()) as (_, client):
            async with client.open_stream(VERSION, OPENING) as stream:
                await stream.send(Audio(0, SECOND))
                await trio.sleep_forever()
    assert died.group_contains(RuntimeError, match="device lost")


async def test_a_connection_that_served_http_becomes_a_stream():
    """A load balancer's connections carry health checks and streams, one after the other."""
    async with engine_server() as (_, client):
        stream = await trio.open_tcp_stream(client.address.host, client.address.port)
        async with stream:
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: e\r\n\r\n")
            answer = b""
            while b'"ok"}' not in answer:
                answer += await stream.receive_some()
            await stream.send_all(
                f"GET {PATH} HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
                f"X-Model-Version: {VERSION}\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")


async def test_an_engine_with_a_secret_asks_gateways_for_it():
    async with engine_server() as (server, client):
        server.secret = "an engine's own secret"
        with pytest.raises(EngineUnavailable, match="secret"):
            async with client.open_stream(VERSION, OPENING):
                pass
        client.secret = "an engine's own secret"
        async with client.open_stream(VERSION, OPENING) as stream:
            assert stream.opened.model == "scripted"
