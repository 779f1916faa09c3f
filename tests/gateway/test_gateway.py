"""The public port over real sockets, with the scripted engine behind it."""

import hashlib
import json
import math
import urllib.parse

import numpy as np
import pytest
import structlog
import trio
from trio_websocket import ConnectionRejected

from ssasr.gateway.auth.licence import Licence
from ssasr.gateway.gateway import READ_AHEAD, READ_AHEAD_TOTAL
from ssasr.gateway.usage.records import UsageRecord
from ssasr.protocol.client_link import MESSAGE_LIMIT
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import KEYTERM_LIMIT, TEXT_LIMIT
from ssasr.protocol.parameters import parse_parameters
from tests.harness.clients import KEY, connect, converse, read_all, speech_like

SILENCE = np.zeros(16_000, np.int16)


async def http(port, request):
    """Status, headers and body of one raw HTTP exchange."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with trio.fail_after(20):
        async with stream:
            await stream.send_all(request.encode("latin-1"))
            answer = b""
            async for data in stream:
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1").lower(), body


def get(path, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("path", ["/v3/health", "/v3/ws/health", "/health", "/ready"])
async def test_health_paths_answer_200(served, path):
    status, _, body = await http(served.port, get(path))
    assert status == 200
    assert json.loads(body) == {"status": "ok"}


async def test_unknown_path_and_method(served):
    assert (await http(served.port, get("/nope")))[0] == 404
    assert (await http(served.port, get("/health", "DELETE")))[0] == 405


async def test_websocket_path_without_upgrade(served):
    status, head, _ = await http(served.port, get("/v3/ws"))
    assert status == 426
    assert "upgrade: websocket" in head


async def test_malformed_request_head_is_400(served):
    assert (await http(served.port, "NONSENSE\r\n\r\n"))[0] == 400


async def test_metrics_are_exposed(served):
    await converse(served.url, SILENCE, sample_rate=16_000)
    ended = b'ssasr_session_ends_total{cause="terminated",code="1000",limit=""} 1.0'
    with trio.fail_after(30):  # the client knows before the session has ended
        while ended not in (await http(served.port, get("/metrics")))[2]:
            await trio.sleep(0.01)


async def test_websocket_on_unknown_path_is_404(served):
    with pytest.raises(ConnectionRejected) as refused:
        async with connect(f"ws://127.0.0.1:{served.port}/v9/ws"):
            pass
    assert refused.value.status_code == 404


@pytest.mark.parametrize("path", ["/v3/ws", "/"])
async def test_a_session(served, path):
    transcript = await converse(
        f"ws://127.0.0.1:{served.port}{path}", speech_like(8.0), sample_rate=16_000
    )
    types = [message["type"] for message in transcript.messages]
    assert types[0] == "Begin"
    assert types[-1] == "Termination"
    assert len(transcript.finals) == 2
    assert [t["turn_order"] for t in transcript.turns if t["end_of_turn"]] == [0, 1]
    assert all(word["word_is_final"] for word in transcript.turns[-1]["words"])
    assert transcript.messages[-1]["audio_duration_seconds"] == 8
    assert transcript.close_code == 1000


async def test_a_session_that_was_served_leaves_one_usage_record(served):
    ended, records = trio.open_memory_channel[UsageRecord](math.inf)
    served.gateway.on_end = ended.send_nowait
    await converse(served.url, SILENCE, sample_rate=1)
    transcript = await converse(served.url, speech_like(3.0), sample_rate=16_000)
    record = await records.receive()  # the client may see its close first
    assert records.statistics().current_buffer_used == 0
    assert record.session_id == transcript.messages[0]["id"]
    assert (record.audio_seconds, record.model, record.close_code) == (3.0, "en-default", 1000)
    assert record.started <= record.ended
    assert record.key_id == hashlib.sha256(KEY.encode()).hexdigest()[:16]


async def test_a_licence_limits_the_sessions(served):
    served.gateway.licence = Licence("Acme", expires=4_000_000_000, max_sessions=1)
    async with connect(served.url, sample_rate=16_000) as one:
        assert json.loads(await one.get_message())["type"] == "Begin"
        assert (await converse(served.url, SILENCE, sample_rate=16_000)).close_code == 3009
    served.gateway.licence = Licence("Acme", expires=0, max_sessions=None)
    assert (await converse(served.url, SILENCE, sample_rate=16_000)).close_code == 3009
    limits = served.gateway.metrics.exposition().decode()
    assert 'cause="too_many_sessions",code="3009",limit="licence"} 2.0' in limits


async def test_what_waits_of_all_sessions_together_is_bounded(served):
    gateway = served.gateway
    assert gateway.read_ahead() == READ_AHEAD
    for sessions in (50, 5_000):
        gateway._sessions = set(range(sessions))
        assert gateway.read_ahead() == max(READ_AHEAD_TOTAL // sessions, MESSAGE_LIMIT)
    gateway._sessions = set()


@pytest.mark.parametrize(
    ("key", "text"), [(None, "Missing Authorization header"), ("wrong", "Invalid API key")]
)
async def test_bad_credentials(served, key, text):
    async with connect(served.url, key=key, sample_rate=16_000) as websocket:
        transcript = await read_all(websocket)
    assert transcript.close_code == 1008
    assert transcript.messages == [
        {"type": "Error", "error": f"Unauthorized Connection: {text}", "error_code": 1008}
    ]


@pytest.mark.parametrize("rate", ["4000", "abc", "16000.5", ""])
async def test_bad_sample_rate(served, rate):
    async with connect(served.url, sample_rate=rate) as websocket:
        transcript = await read_all(websocket)
    assert transcript.close_code == 3006
    assert "sample_rate" in transcript.messages[0]["error"]


async def test_the_longest_parameters_fit_into_a_request(served):
    """Limits are in characters, and one of Chinese is nine bytes of a query."""
    terms = json.dumps(["词" * KEYTERM_LIMIT] * 100, ensure_ascii=False)
    text = urllib.parse.quote("词" * TEXT_LIMIT)
    transcript = await converse(
        served.url, speech_like(0.5), sample_rate=16_000, prompt=text, agent_context=text,
        keyterms_prompt=urllib.parse.quote(terms),
    )  # fmt: skip
    assert transcript.close_code == 1000


@pytest.mark.parametrize("text", ["not json", "[]", '{"type": 1}', '{"type": "Sing"}', "{}"])
async def test_text_that_is_no_message(served, text):
    async with connect(served.url, sample_rate=16_000) as websocket:
        await websocket.send_message(text)
        transcript = await read_all(websocket)
    assert transcript.close_code == 3006
    assert transcript.messages[-1]["error_code"] == 3006
    assert not transcript.of_type("Termination")


async def test_a_client_that_vanishes_frees_its_place(served):
    for _ in range(2):
        with trio.move_on_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            await stream.send_all(
                f"GET /v3/ws?sample_rate=16000 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: {KEY}\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            await stream.receive_some()
            await stream.aclose()
    transcript = await converse(served.url, SILENCE, sample_rate=16_000)
    assert transcript.close_code == 1000
    with trio.fail_after(20):
        while served.gateway.metrics.sessions._value.get() > 0:
            await trio.sleep(0.01)


async def test_no_free_slot_is_3009_before_begin(served):
    async with (
        connect(served.url, sample_rate=16_000) as one,
        connect(served.url, sample_rate=16_000) as two,
        connect(served.url, sample_rate=16_000) as three,
    ):
        for websocket in (one, two, three):
            assert json.loads(await websocket.get_message())["type"] == "Begin"
        started = trio.current_time()
        async with connect(served.url, sample_rate=16_000) as fourth:
            transcript = await read_all(fourth)
        assert trio.current_time() - started < 5.0, "nothing is waited for"
    assert transcript.close_code == 3009
    assert [message["type"] for message in transcript.messages] == ["Error"]


async def test_draining_refuses_and_finishes(served):
    samples = speech_like(2.0)
    async with connect(served.url, sample_rate=16_000) as websocket:
        for start in range(0, len(samples), 1_600):
            await websocket.send_message(samples[start : start + 1_600].tobytes())
        served.gateway.draining.set()
        assert (await http(served.port, get("/ready")))[0] == 503
        with pytest.raises(ConnectionRejected) as refused:
            async with connect(served.url, sample_rate=16_000):
                pass
        assert refused.value.status_code == 503
        transcript = await read_all(websocket)
    assert len(transcript.finals) == 1
    assert transcript.messages[-1]["type"] == "Termination"
    assert transcript.close_code == 1001


@pytest.mark.parametrize(
    "frame",
    [
        b"\x83\x80\x00\x00\x00\x00",  # a reserved opcode
        b"\xf1\x80\x00\x00\x00\x00",  # reserved bits
        b"\x81\x05hello",  # not masked
        b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + bytes(126),  # a ping that is too long
        b"\x81\x82\x00\x00\x00\x00\xff\xfe",  # text that is not UTF-8
        b"\x88\x81\x00\x00\x00\x00\x03",  # half a close code
    ],
)
async def test_frames_that_are_no_websocket_leave_the_server_up(served, frame):
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    with trio.fail_after(20):
        async with stream:
            await stream.send_all(
                b"GET /v3/ws?sample_rate=16000 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Authorization: self-hosted\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await stream.receive_some()
            await stream.send_all(frame)
            async for _ in stream:  # until the server has had enough of it
                pass
    assert (await converse(served.url, SILENCE, sample_rate=16_000)).close_code == 1000


async def test_a_connection_that_served_http_becomes_a_websocket(served):
    """As every proxy does that keeps its connections: nginx, by default, since 1.29.7."""
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    with trio.fail_after(20):
        async with stream:
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while b'"ok"}' not in answer:
                answer += await stream.receive_some()
            await stream.send_all(upgrade_of("/v3/ws?sample_rate=16000"))
            answer = b""
            while b'"Begin"' not in answer:
                answer += await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101")


def upgrade_of(target):
    return (
        f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nAuthorization: {KEY}\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    "target", ["/v3/ws/", "//v3/ws", "//", "http://127.0.0.1:8080/v3/ws", "ws://host/"]
)
async def test_targets_that_mean_a_session(served, target):
    """A host given with a slash at its end; a proxy that forwards the whole address."""
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    with trio.fail_after(20):
        async with stream:
            await stream.send_all(upgrade_of(f"{target}?sample_rate=16000"))
            answer = b""
            while b'"Begin"' not in answer:
                data = await stream.receive_some()
                assert data, answer
                answer += data


@pytest.mark.parametrize("path", ["/v3/health/", "//v3//health", "http://x/v3/health"])
async def test_http_paths_are_as_tolerant(served, path):
    assert (await http(served.port, get(path)))[0] == 200


async def test_redaction_is_refused_where_nothing_redacts(served):
    transcript = await converse(served.url, SILENCE, sample_rate=16_000, redact_pii="true")
    assert transcript.close_code == 3006
    assert "--redaction" in transcript.messages[0]["error"]


async def test_a_new_name_of_the_vendors_is_served_and_logged_once(served):
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            query = {"sample_rate": 16_000, "speech_model": "universal-3-9-pro"}
            async with connect(served.url, **query, domain="medical-v1") as websocket:
                messages = [json.loads(await websocket.get_message()) for _ in range(2)]
            assert [message["type"] for message in messages] == ["Begin", "Warning"]
    noted = [entry for entry in logs if entry.get("speech_model") == "universal-3-9-pro"]
    assert [entry["log_level"] for entry in noted] == ["warning"]


async def test_half_a_character_is_the_clients_fault(served):
    async with connect(served.url, sample_rate=16_000) as websocket:
        await websocket.send_message('{"type": "UpdateConfiguration", "prompt": "\\ud83d"}')
        transcript = await read_all(websocket)
    assert transcript.close_code == 3006


class BrokenOffer:
    def kind_for(self, parameters):
        raise RuntimeError("a bug while terms are agreed")


async def test_a_bug_while_terms_are_agreed_is_3005_and_keeps_no_place(served):
    offer, served.gateway.offer = served.gateway.offer, BrokenOffer()
    for _ in range(4):  # more than there are places
        async with connect(served.url, sample_rate=16_000) as websocket:
            transcript = await read_all(websocket)
        assert transcript.close_code == 3005
        assert transcript.messages[-1]["error_code"] == 3005
    assert served.gateway.access.quota.open() == {}
    served.gateway.offer = offer
    assert (await converse(served.url, SILENCE, sample_rate=16_000)).close_code == 1000


async def test_a_message_over_the_limit_is_said_and_counted(served):
    """The library used to close by itself: no Error, and the metric said that the client left."""
    async with connect(served.url, sample_rate=192_000) as websocket:
        await websocket.send_message(bytes((1 << 20) + 1))
        transcript = await read_all(websocket)
    assert transcript.messages[-1]["error_code"] == transcript.close_code == 1009
    ended = b'cause="message_too_big"'
    with trio.fail_after(20):
        while ended not in (await http(served.port, get("/metrics")))[2]:
            await trio.sleep(0.01)


MASKED = b"\0\0\0\0"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80" + MASKED, 1002),  # a reserved opcode
        (b"\xf1\x80" + MASKED, 1002),  # reserved bits
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x09\x80" + MASKED, 1002),  # a ping in fragments
        (b"\x80\x80" + MASKED, 1002),  # a continuation of nothing
        (b"\x81\x82" + MASKED + b"\xff\xfe", 1007),
        (b"\x01\x81" + MASKED + b"\xc3\x80\x81" + MASKED + b"\x28", 1007),  # in two fragments
        (b"\x88\x81" + MASKED + b"\x03", 1002),  # half a close code
        (b"\x88\x84" + MASKED + b"\x03\xe8\xff\xfe", 1007),  # a reason that is no text
    ],
)
async def test_a_breach_of_the_websocket_protocol_is_answered_with_its_code(served, frame, code):
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    with trio.fail_after(20):
        async with stream:
            await stream.send_all(upgrade_of("/v3/ws?sample_rate=16000"))
            answer = b""
            while b'"Begin"' not in answer:
                answer += await stream.receive_some()
            await stream.send_all(frame)
            async for data in stream:
                answer += data
    close = answer[answer.rindex(b"\x88") :]
    assert int.from_bytes(close[2:4], "big") == code


async def test_no_terms_hold_less_redaction_than_was_asked_for(served):
    """Whichever protocol the client speaks: what it is sent follows from the terms alone."""
    parameters = parse_parameters("redact_pii=true")
    grant = served.gateway.access.open_session("self-hosted", None, 0.0)
    with grant, pytest.raises(ClientFault):
        served.gateway.terms(parameters, "an-id", grant)
