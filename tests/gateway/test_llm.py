"""The LLM gateway: what is asked, what the client gets, and that a slow LLM holds up nobody."""

import json
import urllib.parse

import pytest
import trio
from assemblyai.streaming.v3 import LLMGatewayResponseEvent

from ssasr.errors import StartRefused
from ssasr.gateway import llm
from ssasr.gateway.llm import MOST_WAITING, LlmGateway
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.messages import Termination, Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.runtime.handoff import HandoffChannel
from tests.harness.clients import converse, speech_like
from tests.harness.collecting_server import CollectingServer

ASKED = {
    "model": "small",
    "messages": [
        {"role": "system", "content": "Answer in a word."},
        {"role": "user", "content": "He said: {{turn}}!"},
    ],
    "max_tokens": 20,
}
SAID = {
    "id": "chat-1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}
PARAMETER = urllib.parse.quote(json.dumps(ASKED), safe="")
REQUEST = parse_parameters(f"llm_gateway={PARAMETER}").llm


@pytest.fixture
async def endpoint(nursery):
    server = CollectingServer(answer=json.dumps(SAID).encode())
    await nursery.start(server.run)
    yield server
    nursery.cancel_scope.cancel()


def gateway_of(endpoint, **options):
    target = LlmGateway.parse(f"http://127.0.0.1:{endpoint.port}/v1", "a-key").target
    return LlmGateway(target, "a-key", **options)


async def test_each_turn_is_answered(served, endpoint):
    served.gateway.features.llm = gateway_of(endpoint)
    transcript = await converse(
        served.url, speech_like(8.0), sample_rate=16_000, llm_gateway=PARAMETER
    )
    types = [message["type"] for message in transcript.messages]
    assert types[-1] == "Termination"
    answers = transcript.of_type("LLMGatewayResponse")
    finals = [turn for turn in transcript.turns if turn["end_of_turn"]]
    assert [each["turn_order"] for each in answers] == [0, 1]
    assert [each["transcript"] for each in answers] == transcript.finals
    for answer, final in zip(answers, finals, strict=True):
        assert transcript.messages.index(final) < transcript.messages.index(answer)
        data = LLMGatewayResponseEvent.model_validate(answer).data
        assert data["choices"] == SAID["choices"]
        assert data["usage"] == {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
        assert data["llm_status_code"] == 200
        assert data["response_time"] > 0
    posted = endpoint.posts[0]
    assert posted.path == "/v1/chat/completions"
    assert posted.headers["authorization"] == "Bearer a-key"
    asked = json.loads(posted.body)
    assert asked["messages"][1]["content"] == f"He said: {transcript.finals[0]}!"
    assert (asked["model"], asked["max_tokens"]) == ("small", 20)


async def test_a_slow_llm_holds_up_neither_turns_nor_the_end(served, endpoint, monkeypatch):
    monkeypatch.setattr(llm, "LAST_ANSWERS", 0.1)
    endpoint.release = trio.Event()
    served.gateway.features.llm = gateway_of(endpoint)
    with trio.fail_after(60):
        transcript = await converse(
            served.url, speech_like(8.0), sample_rate=16_000, llm_gateway=PARAMETER
        )
    assert len(transcript.finals) == 2
    assert transcript.of_type("LLMGatewayResponse") == []
    assert (transcript.messages[-1]["type"], transcript.close_code) == ("Termination", 1000)
    assert len(endpoint.posts) == 1, "the second was not asked"
    endpoint.release.set()


def turn(order):
    return Turn(order, True, True, f"turn {order}", "", 1.0, ())


async def test_turns_beyond_those_that_may_wait_are_answered_without_being_asked(endpoint, nursery):
    endpoint.release = trio.Event()
    results = []
    answers = gateway_of(endpoint, on_answer=results.append).companion(REQUEST)
    messages = HandoffChannel(1_000)
    nursery.start_soon(answers.run, messages)
    for order in range(MOST_WAITING + 3):
        await answers(turn(order))
    await endpoint.wait_posts(1)
    endpoint.release.set()
    with trio.fail_after(60):
        got = [await messages.receive() for _ in range(MOST_WAITING + 3)]
    codes = {each.turn_order: each.data["llm_status_code"] for each in got}
    assert codes == {**dict.fromkeys(range(MOST_WAITING), 200), **dict.fromkeys((8, 9, 10), 503)}
    assert sorted(results) == ["answered"] * MOST_WAITING + ["failed"] * 3
    await answers(Termination(1, 1))
    assert len(endpoint.posts) == MOST_WAITING


async def test_nothing_follows_termination(endpoint, monkeypatch):
    """The request that is under way is given up."""
    monkeypatch.setattr(llm, "LAST_ANSWERS", 0.0)
    endpoint.release = trio.Event()
    answers, messages = gateway_of(endpoint).companion(REQUEST), HandoffChannel(1_000)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.run, messages)
            await answers(turn(0))
            await endpoint.wait_posts(1)
            await answers(Termination(1, 1))
    endpoint.release.set()


@pytest.mark.parametrize(
    ("script", "answer", "code"),
    [
        ([500], None, 500),
        ([0], None, 502),
        ([200], b"no JSON", 502),
        ([200], b"[]", 502),
        ([200], b'{"choices": [{}]}', 502),
        ([200], b'{"choices": [], "usage": {"prompt_tokens": "x"}}', 502),
        ([200], b'{"choices": [], "usage": {"prompt_tokens": 1e999}}', 502),
        ([200], b'{"choices": [{"message": {"content": 1e999}}]}', 502),
        ([301], None, 301),
        ([200], json.dumps({"choices": [], "x": "y" * llm.LONGEST_DATA}).encode(), 502),
    ],
)
async def test_what_is_no_answer_says_so(endpoint, script, answer, code):
    endpoint.script = script
    endpoint.answer = endpoint.answer if answer is None else answer
    data = await gateway_of(endpoint).ask({"model": "x"})
    assert (data["llm_status_code"], data["choices"]) == (code, [])
    assert len(endpoint.posts) == 1, "nothing is followed or asked again"


async def test_what_takes_too_long_or_is_not_there(endpoint):
    endpoint.release = trio.Event()
    data = await gateway_of(endpoint, seconds=0.05).ask({})
    assert data["llm_status_code"] == 504
    away = LlmGateway.parse("http://127.0.0.1:1/v1/chat/completions")
    assert (await away.ask({}))["llm_status_code"] == 502


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {},
        {**ASKED, "model": ""},
        {**ASKED, "model": 3},
        {**ASKED, "max_tokens": 0},
        {**ASKED, "max_tokens": True},
        {**ASKED, "messages": []},
        {**ASKED, "messages": [{"role": "user", "content": "without"}]},
        {**ASKED, "messages": [{"role": "user", "content": "{{turn}}" * 17}]},
        {**ASKED, "messages": [{"role": "boss", "content": "{{turn}}"}]},
        {**ASKED, "messages": ["{{turn}}"]},
        {**ASKED, "messages": [{"role": "user", "content": None}]},
    ],
)
def test_parameters_that_cannot_be_used(asked):
    with pytest.raises(ClientFault, match="llm_gateway"):
        parse_parameters(urllib.parse.urlencode({"llm_gateway": json.dumps(asked)}))


async def test_refused_where_no_endpoint_is_named(served):
    transcript = await converse(
        served.url, speech_like(0.5), sample_rate=16_000, llm_gateway=PARAMETER
    )
    assert transcript.close_code == 3006
    assert "--llm-gateway-url" in transcript.messages[-1]["error"]


@pytest.mark.parametrize("url", ["ftp://x/v1", "llm.example", "http://u:p@h/v1"])
def test_addresses_that_are_none_refuse_the_start(url):
    with pytest.raises(StartRefused):
        LlmGateway.parse(url)
