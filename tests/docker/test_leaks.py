"""Nothing that a client says, sends or proves itself with is in any log, metric, record or trace,
by whatever interface it comes, and nothing is sent anywhere else.

One run of the whole stack at the most talkative log level, with marked words, keys and tokens; then
every output is searched for them. What a client was sent is searched for word by word.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import soundfile

from tests.docker import compose
from tests.docker.test_stack import SPEECH, fetch, names, services
from tests.harness import collector
from tests.harness.isolated import Plan, Report, Service, can_isolate, run_isolated

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

KEY = "zq-marked-key"
WRONG_KEY = "zq-marked-wrong-key"
TERM = "zqmarkedterm"
HOOK = "zqmarkedhook.example"
PROMPT = "zqmarkedprompt"
COLLECTOR, COLLECTOR_PORT = "collector", 4318

# Streams the recording with everything marked, over HTTP-issued token too and by OpenAI's realtime
# protocol, and sends it as a file; asks for what only an operator can allow, and has a file that
# names an address; prints the answers.
CLIENT = f"""
import asyncio, base64, json, sys, urllib.error, urllib.parse, urllib.request
import soundfile, websockets

BASE = "//streaming-api:8080/v3/"
HEADERS = {{"Authorization": "{KEY}"}}

async def session(query, headers):
    samples, rate = soundfile.read({str(SPEECH)!r}, dtype="int16")
    url = "ws:" + BASE + "ws?" + urllib.parse.urlencode(query)
    async with websockets.connect(url, additional_headers=headers) as ws:
        for at in range(0, len(samples), rate // 10):
            chunk = samples[at : at + rate // 10].tobytes()
            await ws.send(chunk.ljust(rate // 10 * 2, bytes(1)))
        await ws.send(json.dumps({{"type": "UpdateConfiguration", "prompt": "{PROMPT}"}}))
        await ws.send("not json {TERM}" if query.get("spoil") else '{{"type": "Terminate"}}')
        async for message in ws:
            print(message)

async def realtime():
    request = urllib.request.Request(
        "http://streaming-api:8080/v1/realtime/client_secrets", method="POST",
        headers={{"Authorization": "Bearer {KEY}"}},
    )
    secret = json.load(urllib.request.urlopen(request))["value"]
    print(json.dumps({{"token": secret}}))
    samples, rate = soundfile.read({str(SPEECH)!r}, dtype="int16")
    url = "ws://streaming-api:8080/v1/realtime?intent=transcription"
    protocols = ["realtime", "openai-insecure-api-key." + secret]
    settings = {{"transcription": {{"keywords": ["{TERM}"], "prompt": "{PROMPT}"}},
                "turn_detection": None}}
    session = {{"type": "transcription", "audio": {{"input": settings}}}}
    async with websockets.connect(url, subprotocols=protocols) as ws:
        await ws.send(json.dumps({{"type": "session.update", "session": session}}))
        for at in range(0, len(samples), rate):
            audio = base64.b64encode(samples[at : at + rate].tobytes()).decode()
            await ws.send(json.dumps({{"type": "input_audio_buffer.append", "audio": audio}}))
        await ws.send(json.dumps({{"type": "{TERM}"}}))
        await ws.send(json.dumps({{"type": "input_audio_buffer.commit"}}))
        async for message in ws:
            print(message)
            if json.loads(message)["type"].endswith(".completed"):
                break

def file(content):
    fields = [('name="prompt"', b"{PROMPT}"), ('name="file"; filename="{TERM}"', content)]
    body = b"".join(
        b"--b\\r\\nContent-Disposition: form-data; %s\\r\\n\\r\\n%s\\r\\n" % (name.encode(), value)
        for name, value in fields
    ) + b"--b--\\r\\n"
    headers = HEADERS | {{"Content-Type": "multipart/form-data; boundary=b"}}
    url = "http://streaming-api:8080/v1/audio/transcriptions"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as refused:
        print(json.dumps({{"status": refused.code}}))

async def main():
    file(open({str(SPEECH)!r}, "rb").read())
    file(b"#EXTM3U\\n#EXTINF:9,\\nhttp://192.0.2.7/{TERM}.ts\\n")
    await realtime()
    url = "http:" + BASE + "token?expires_in_seconds=60"
    request = urllib.request.Request(url, headers=HEADERS)
    token = json.load(urllib.request.urlopen(request))["token"]
    print(json.dumps({{"token": token}}))
    terms = json.dumps(["{TERM}"])
    query = {{"sample_rate": 16000, "keyterms_prompt": terms, "prompt": "{PROMPT}"}}
    await session(query, HEADERS)
    await session(query | {{"token": token}}, {{}})
    asked = {{"model": "{TERM}", "max_tokens": 9,
             "messages": [{{"role": "user", "content": "{PROMPT} {{{{turn}}}}"}}]}}
    for extra, headers in (
        ({{"spoil": 1}}, HEADERS),
        ({{}}, {{"Authorization": "{WRONG_KEY}"}}),
        ({{"webhook_url": "https://{HOOK}/"}}, HEADERS),
        ({{"llm_gateway": json.dumps(asked)}}, HEADERS),
    ):
        try:
            await session(query | extra, headers)
        except websockets.ConnectionClosed as closed:
            print(repr(closed), file=sys.stderr)
            print(json.dumps({{"closed": closed.rcvd.code}}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def usage(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def report(tmp_path_factory, usage: Path, traces: Path) -> Report:
    if not can_isolate():
        pytest.skip("needs the right to make network namespaces")
    assert soundfile.info(SPEECH).samplerate == 16_000
    marked = {"API_KEYS": KEY, "LOG_LEVEL": "debug"}
    extra = {"SSASR_USAGE_DIR": str(usage)}
    traced = {"SSASR_OTLP_ENDPOINT": f"http://{COLLECTOR}:{COLLECTOR_PORT}"}
    stack = services(tmp_path_factory.mktemp("lb"), marked, extra)
    for service in stack:
        service.environment.update(traced)
    script, port = str(Path(collector.__file__)), str(COLLECTOR_PORT)
    receiver = [sys.executable, script, port, str(traces)]
    plan = Plan(
        names() | {COLLECTOR: ["127.0.1.9"]},
        [Service(COLLECTOR, receiver, {}, ready=f"http://127.0.0.1:{port}/"), *stack],
        [
            [sys.executable, "-c", CLIENT],
            fetch("http://streaming-api:8080/metrics"),
            fetch("http://streaming-api:8080/v1/status"),
            fetch("http://streaming-asr-english:50051/metrics"),
        ],
    )
    return run_isolated(plan)


@pytest.fixture(scope="module")
def answers(report: Report) -> list[dict]:
    """What the client printed."""
    client = report.commands[0]
    assert client.status == 0, client.errors + report.logs["streaming-api"]
    return [json.loads(line) for line in client.output.splitlines()]


def outputs(report: Report, usage: Path, traces: Path) -> dict[str, str]:
    """Every text that leaves a process other than to its client."""
    found = {name: text for name, text in report.logs.items() if name != COLLECTOR}
    found["traces"] = collector.read_spans(traces)[1]
    found |= {ran.argv[-1]: ran.output for ran in report.commands[1:]}
    found |= {path.name: path.read_text() for path in usage.iterdir()}
    return found


def test_the_run_was_one_worth_searching(
    report: Report, answers: list[dict], usage: Path, traces: Path
):
    assert sum(message.get("type") == "Termination" for message in answers) == 2
    assert [message["closed"] for message in answers if "closed" in message] == [
        3006, 1008, 3006, 3006,
    ]  # fmt: skip
    assert [message["status"] for message in answers if "status" in message] == [400]
    found = outputs(report, usage, traces)
    spans, _ = collector.read_spans(traces)
    assert sum(span["name"] == "session" for span in spans) == 4, "three were refused"
    ids = {span["id"] for span in spans if span["name"] == "engine stream"}
    seen_by_engines = {span["parent"] for span in spans if span["name"] == "stream"}
    assert seen_by_engines <= ids, "nginx hands the context on"
    assert len(seen_by_engines) >= 2, "a session may be gone before its engine hears of it"
    assert "usage-00000001.jsonl" in found
    assert all(found.values()), "each has something to say"
    assert '"level": "debug"' in "".join(report.logs.values())


def test_no_word_of_a_transcript_is_anywhere(
    report: Report, answers: list[dict], usage: Path, traces: Path
):
    words = {
        word["text"].lower()
        for message in answers
        if message.get("type") == "Turn"
        for word in message["words"]
    }
    words |= {
        word.lower()
        for message in answers
        if message.get("type", "").endswith(".completed")
        for word in message["transcript"].split()
    }
    (file,) = [message["text"] for message in answers if "text" in message]
    words |= set(file.lower().split())
    long = {re.sub(r"\W", "", word) for word in words if len(word) >= 5}
    assert len(long) >= 5, "enough that could not be there by chance"
    for name, text in outputs(report, usage, traces).items():
        written = set(re.findall(r"\w+", text.lower()))
        assert not long & written, name


def test_no_credential_and_no_term_is_anywhere(
    report: Report, answers: list[dict], usage: Path, traces: Path
):
    tokens = [message["token"] for message in answers if "token" in message]
    for name, text in outputs(report, usage, traces).items():
        for secret in (KEY, WRONG_KEY, TERM, PROMPT, HOOK, *tokens):
            assert secret not in text, name


def test_records_hold_what_is_allowed(report: Report, usage: Path):
    assert report.statuses["streaming-api"] == 0
    lines = (usage / "usage-00000001.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert sorted(record["close_code"] for record in records) == [1000] * 4 + [3006] * 2
    seconds = soundfile.info(SPEECH).duration
    whole = sorted(record["audio_seconds"] for record in records if record["close_code"] == 1000)
    expected = [seconds * 2 / 3, seconds, seconds, seconds]  # the first at 24 kHz
    assert all(abs(a - b) < 0.2 for a, b in zip(whole, expected, strict=True))
    assert len({record["key_id"] for record in records}) == 1, "a token counts for its key"


def test_nothing_tried_to_leave(report: Report):
    assert report.leaving == []
    assert set(report.questions) <= {COLLECTOR, *compose.load()["services"]}
