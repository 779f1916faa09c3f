"""Files over HTTP, by OpenAI's own SDK, to a gateway with scripted engines; and what is no file."""

import io
from functools import partial

import av
import numpy as np
import openai
import pytest
import soundfile
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ssasr.errors import EngineUnavailable
from ssasr.gateway.http import http_app
from ssasr.gateway.openai import transcription, uploads
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.routes import openai_routes
from ssasr.protocol.close_codes import EndCause
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.protocol.speech_models import EngineKind
from ssasr.telemetry.tracing import NOTHING
from tests.conftest import JFK
from tests.harness.asgi import ask

BOUNDARY = "frontier"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FORM = {"authorization": "Bearer self-hosted", "content-type": FORM_TYPE}


@pytest.fixture
async def sdk(served):
    """Its methods, each in a thread."""
    client = openai.OpenAI(
        api_key="self-hosted", base_url=f"http://127.0.0.1:{served.port}/v1", max_retries=0
    )

    async def call(method, **arguments):
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(partial(method, **arguments))

    call.client = client
    yield call
    client.close()


def transcribe(sdk, file=JFK, **arguments):
    create = sdk.client.audio.transcriptions.create
    return sdk(create, **{"model": "whisper-1", "file": file, **arguments})


def wav(samples, rate=SAMPLE_RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return ("a.wav", file.getvalue())


def long_speech(jfk, seconds):
    return np.tile(jfk, -(-seconds // 11))[: seconds * SAMPLE_RATE]


async def test_every_format(sdk):
    plain = await transcribe(sdk)
    assert plain.text.split()
    assert plain.usage.seconds == 11
    assert (await transcribe(sdk, response_format="text")).strip() == plain.text
    assert (await transcribe(sdk, response_format="srt")).startswith("1\n00:00:00,")
    assert (await transcribe(sdk, response_format="vtt")).startswith("WEBVTT\n")
    verbose = await transcribe(
        sdk, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert [word.word for word in verbose.words] == plain.text.split()
    assert verbose.duration == 11
    assert " ".join(each.text for each in verbose.segments) == plain.text


async def test_speakers(sdk):
    diarized = await transcribe(
        sdk, model="gpt-4o-transcribe-diarize", response_format="diarized_json"
    )
    assert diarized.segments
    assert {each.type for each in diarized.segments} == {"transcript.text.segment"}


async def test_a_stream_of_events_is_the_same_text(sdk, jfk):
    file = wav(long_speech(jfk, 70))
    whole = await transcribe(sdk, file)

    def read():
        return list(
            sdk.client.audio.transcriptions.create(model="whisper-1", file=file, stream=True)
        )

    events = await sdk(read)
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + [
        "transcript.text.done"
    ]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == whole.text


async def test_a_second_stream_helps_and_need_not(sdk, jfk, engines, served):
    """Words do not depend on how many streams an engine has room for."""
    file = wav(long_speech(jfk, 100))
    both = await transcribe(sdk, file)
    (host,) = {engines.hosts["ml-default"]}
    with host.reserve(), host.reserve():
        assert await transcribe(sdk, file) == both
        with host.reserve(), pytest.raises(openai.RateLimitError) as refused:
            await transcribe(sdk, file)
    assert refused.value.response.headers["retry-after"] == "5"
    await trio.testing.wait_all_tasks_blocked()
    assert served.gateway.session_count().running == 0


async def test_other_containers(sdk, jfk):
    for name, codec in (("a.mp4", "aac"), ("a.mp3", "mp3"), ("a.webm", "libopus")):
        file = io.BytesIO()
        with av.open(file, "w", format=name.split(".")[1]) as container:
            stream = container.add_stream(codec, rate=48_000)
            frame = av.AudioFrame.from_ndarray(jfk[None, :32_000], "s16", "mono")
            frame.rate = SAMPLE_RATE
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        assert (await transcribe(sdk, (name, file.getvalue()))).text


async def test_the_sound_of_a_video(sdk, jfk):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=5)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE)
        for _ in range(10):
            black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            container.mux(pictures.encode(black))
        container.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(jfk[None, :32_000], "s16", "mono")
        frame.rate = SAMPLE_RATE
        container.mux([*sound.encode(frame), *sound.encode(None)])
    assert (await transcribe(sdk, ("a.mp4", file.getvalue()))).text


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_U8", "FLOAT", "ULAW", "GSM610"])
async def test_other_samples_than_16_bits(sdk, jfk, subtype):
    file = io.BytesIO()
    speech = jfk[:64_000:2].astype(np.float32) / 32_768
    soundfile.write(file, speech, 8_000, format="WAV", subtype=subtype)
    assert (await transcribe(sdk, ("a.wav", file.getvalue()))).text


async def test_a_file_shorter_than_any_word(sdk):
    for samples in (1, 160, 1_600):
        assert (await transcribe(sdk, wav(np.zeros(samples, np.int16)))).text == ""


@pytest.mark.parametrize(
    ("name", "languages", "kind"),
    [
        (None, (), EngineKind.MULTILINGUAL),
        ("whisper-1", ("en",), EngineKind.ENGLISH),
        ("gpt-4o-transcribe", ("en-US",), EngineKind.ENGLISH),
        ("gpt-4o-transcribe", ("en", "es"), EngineKind.MULTILINGUAL),
        ("english", ("en",), EngineKind.ENGLISH),
        ("multilingual", ("en",), EngineKind.MULTILINGUAL),
        ("ours", (), EngineKind.ENGLISH),
        ("universal-3-99-next", (), EngineKind.MULTILINGUAL),
    ],
)
def test_one_table_says_which_engine_serves_a_name(name, languages, kind):
    names = ModelNames(
        (EngineKind.ENGLISH, EngineKind.MULTILINGUAL), {"ours": "universal-streaming-english"}
    )
    assert names.engine(name, languages) is kind


async def test_models(sdk):
    names = {model.id for model in await sdk(sdk.client.models.list)}
    assert {"whisper-1", "english", "multilingual"} <= names
    one = await sdk(sdk.client.models.retrieve, model="whisper-1")
    assert one.id == "whisper-1"
    with pytest.raises(openai.NotFoundError):
        await sdk(sdk.client.models.retrieve, model="nobody")


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (openai.NotFoundError, {"model": "nobody"}),
        (openai.BadRequestError, {"language": "xx"}),
        (openai.BadRequestError, {"model": "english", "language": "de"}),
        (openai.BadRequestError, {"response_format": "xml"}),
        (openai.BadRequestError, {"temperature": 7.0}),
        (openai.BadRequestError, {"file": ("a.wav", b"")}),
        (openai.BadRequestError, {"file": ("a.wav", b"RIFF nonsense" * 100)}),
        (openai.BadRequestError, {"file": ("a.txt", b"#EXTM3U\nhttp://127.0.0.1/a.ts\n" * 9)}),
        (openai.APIStatusError, {"file": ("a.wav", bytes(10 << 20))}),  # 413
    ],
)
async def test_what_cannot_be_served_is_refused_in_words(sdk, error, arguments):
    with pytest.raises(error) as refused:
        await transcribe(sdk, **arguments)
    assert refused.value.code


@pytest.mark.filterwarnings("ignore:deprecated")  # by the SDK, which has it all the same
async def test_translation_needs_a_model_that_translates(sdk):
    create = sdk.client.audio.translations.create
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk(create, model="whisper-1", file=JFK)
    assert refused.value.code == "not_supported"


async def test_no_key_no_transcription(served):
    client = openai.OpenAI(
        api_key="somebody", base_url=f"http://127.0.0.1:{served.port}/v1", max_retries=0
    )
    for call in (
        partial(client.audio.transcriptions.create, model="whisper-1", file=JFK),
        client.models.list,
    ):
        with pytest.raises(openai.AuthenticationError):
            await trio.to_thread.run_sync(call)
    client.close()


async def test_hours_of_silence_in_a_few_kilobytes(sdk, monkeypatch):
    monkeypatch.setattr(transcription, "LONGEST_AUDIO", 60)
    file = io.BytesIO()
    soundfile.write(file, np.zeros(300 * SAMPLE_RATE, np.int16), SAMPLE_RATE, format="FLAC")
    assert len(file.getvalue()) < 100_000
    with pytest.raises(openai.BadRequestError) as refused:
        await transcribe(sdk, ("a.flac", file.getvalue()))
    assert refused.value.code == "audio_too_long"


async def test_while_it_drains_no_file_is_taken(sdk, served):
    job = served.gateway.begin_job("Bearer self-hosted")
    served.gateway.draining.set()
    with pytest.raises(openai.InternalServerError) as refused:
        await transcribe(sdk)
    assert refused.value.code == "server_shutting_down"
    served.gateway.end_job(job)


# -- bodies ----------------------------------------------------------------------------------------


class NoEngines:
    """Whatever comes so far can be transcribed."""

    def open_stream(self, version, opening):
        raise EngineUnavailable("none")


class FakeJobs:
    engines = NoEngines()

    def __init__(self):
        self.ended = []

    def begin_job(self, authorization):
        return FakeJob()

    def span_of(self, job):
        return NOTHING

    def end_job(self, job):
        self.ended.append(job.cause)


class FakeJob:
    def __init__(self):
        self.id, self.model_version, self.audio_seconds = "a", "", 0.0
        self.scope, self.cause = trio.CancelScope(), EndCause.INTERNAL

    def wind_down(self, cause):
        self.cause = cause
        self.scope.cancel()


def app_of(jobs):
    names = ModelNames((EngineKind.ENGLISH, EngineKind.MULTILINGUAL))
    return http_app({}, openai_routes(jobs, None, names, 1 << 20))


def post(app, body, **headers):
    return ask(
        app, "/v1/audio/transcriptions", method="POST", headers={**FORM, **headers}, body=body
    )


def part(name, value, filename=None):
    named = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
SPEECH = part("file", JFK.read_bytes(), "a.flac")


async def test_a_whole_body_reaches_the_engines():
    answer = await post(app_of(FakeJobs()), SPEECH + END)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert answer.headers["retry-after"] == "5"


async def test_a_form_without_an_end_is_refused():
    """What was uploaded may be a part of it."""
    answer = await post(app_of(FakeJobs()), SPEECH)
    assert answer.status == 400
    assert "no end" in answer.json()["error"]["message"]


async def test_fields_that_were_left_empty_are_as_left_out():
    names = ("model", "language", "prompt", "response_format", "temperature", "stream",
             "timestamp_granularities[]")  # fmt: skip
    empty = b"".join(part(name, b"") for name in names)
    answer = await post(app_of(FakeJobs()), empty + SPEECH + END)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "engine_unavailable")


parts = st.builds(
    part,
    st.sampled_from(["file", "model", "language", "stream", "timestamp_granularities[]", "x", ""]),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"json", b"true", b"whisper-1", b"word"])),
    st.sampled_from([None, "a.wav", "ä/../b"]),
)
bodies = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda found, end, cut: (b"".join(found) + end)[: -cut or None],
        st.lists(st.one_of(parts, st.just(SPEECH)), max_size=6),
        st.sampled_from([END, b"", b"--"]),
        st.integers(0, 30),
    ),
)


@given(
    bodies,
    st.integers(1, 4_000),
    st.booleans(),
    st.sampled_from(
        [
            FORM["content-type"],
            "multipart/form-data",
            "text/plain",
            "multipart/form-data; boundary=",
        ]
    ),
)
def test_any_body_ends_in_a_documented_answer(body, size, leaves, content_type):
    pieces = [body[at : at + size * 64] for at in range(0, len(body), size * 64)] or [b""]
    jobs = FakeJobs()

    async def answered():
        sent = [*pieces, None] if leaves else pieces
        return await post(app_of(jobs), sent, **{"content-type": content_type})

    answer = trio.run(answered)
    assert len(jobs.ended) == 1
    if answer is None:
        assert jobs.ended == [EndCause.CLIENT_VANISHED]
    else:
        assert answer.status in (400, 404, 413, 503)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/audio/transcriptions", 405, "method_not_allowed"),
        ("POST", "/v1/audio/speech", 404, "unknown_url"),
        ("POST", "/v1/chat/completions", 404, "unknown_url"),
    ],
)
async def test_what_is_not_here_is_said_as_openai_says_it(method, path, status, code):
    answer = await ask(app_of(FakeJobs()), path, method=method, headers=FORM, body=b"")
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert ("allow" in answer.headers) == (status == 405)


async def test_an_upload_that_breaks_off(autojump_clock):
    jobs = FakeJobs()
    assert await post(app_of(jobs), [SPEECH[:1_000], None]) is None
    assert jobs.ended == [EndCause.CLIENT_VANISHED]


async def test_more_than_was_declared_is_refused_too():
    answer = await post(app_of(FakeJobs()), [SPEECH, *[bytes(1 << 20)] * 3])
    assert answer.status == 413
    answer = await post(app_of(FakeJobs()), END, **{"content-length": str(5 << 20)})
    assert answer.status == 413


async def test_an_upload_that_dribbles_is_ended(monkeypatch):
    monkeypatch.setattr(uploads, "PATIENCE", -1.0)
    answer = await post(app_of(FakeJobs()), [b"x", b"y"])
    assert (answer.status, answer.json()["error"]["code"]) == (408, "upload_too_slow")


async def test_a_full_disk_is_said(monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", full)
    answer = await post(app_of(FakeJobs()), SPEECH + END)
    assert (answer.status, answer.json()["error"]["code"]) == (507, "insufficient_storage")
