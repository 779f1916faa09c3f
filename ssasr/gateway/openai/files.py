"""``POST /v1/audio/transcriptions`` and ``/v1/audio/translations``: a file in, its words out."""

from typing import Protocol

import trio
from attrs import define, frozen
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ssasr.errors import EngineError
from ssasr.gateway.jobs import Job
from ssasr.gateway.openai import formats
from ssasr.gateway.openai.errors import ApiError, going_down, of_engine, of_fault
from ssasr.gateway.openai.formats import Transcript
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.transcription import (
    Emit,
    FileTranscription,
    Piece,
    Task,
    open_recording,
)
from ssasr.gateway.openai.uploads import Upload, read_upload
from ssasr.protocol.close_codes import EndCause
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions
from ssasr.routing.engine_stream import Engines
from ssasr.runtime.process import plain_nursery
from ssasr.session.speakers.labels import SpeakerLabels
from ssasr.telemetry.tracing import Span, working_under


class Jobs(Protocol):
    """What a gateway has for files (``gateway.Gateway``)."""

    engines: Engines

    def begin_job(self, authorization: str | None) -> Job:
        """Among the sessions, until ``end_job``. Raises ClientFault."""

    def end_job(self, job: Job) -> None: ...
    def span_of(self, job: Job) -> Span: ...


@frozen(eq=False)
class FileEndpoint:
    """An ASGI callable. ``most``: bytes of a file."""

    jobs: Jobs
    names: ModelNames
    most: int
    translation: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            job = self.jobs.begin_job(request.headers.get("authorization"))
        except ClientFault as fault:
            await of_fault(fault).response()(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        try:
            with working_under(self.jobs.span_of(job)), job.scope:
                await self._answer(request, job, answer)
        finally:
            self.jobs.end_job(job)
        if job.cause is EndCause.DRAINED:
            await answer.fail(going_down())

    async def _answer(self, request: Request, job: Job, answer: "_Answer") -> None:
        try:
            upload = await read_upload(request, self.most, translation=self.translation)
            with upload.file:
                async with plain_nursery() as nursery:
                    nursery.start_soon(_watch, request, job, answer)
                    await self._transcribe(upload, job, answer)
                    nursery.cancel_scope.cancel()
            job.cause = EndCause.TERMINATED
        except ClientDisconnect:
            job.cause = EndCause.CLIENT_VANISHED
        except ApiError as error:
            internal = error.status >= 500
            job.cause = EndCause.INTERNAL if internal else EndCause.INVALID_INPUT
            await answer.fail(error)
        except EngineError as error:
            failure = of_engine(error)
            full = failure.status == 429
            job.cause = EndCause.TOO_MANY_SESSIONS if full else EndCause.ENGINE_LOST
            await answer.fail(failure)

    async def _transcribe(self, upload: Upload, job: Job, answer: "_Answer") -> None:
        task = self._task(upload, job)
        recording = await trio.to_thread.run_sync(open_recording, upload.file)
        transcript = Transcript(SpeakerLabels() if upload.speakers else None, sent=upload.stream)
        emit: Emit = _Events(transcript, answer) if upload.stream else _Collected(transcript)
        working = FileTranscription(self.jobs.engines, task, recording, emit)
        try:
            if upload.stream:
                await answer.begin_events()
            await working.run()
        finally:
            job.audio_seconds = working.samples / SAMPLE_RATE
            recording.close()
        if upload.stream:
            await answer.end_events(transcript)
        else:
            await answer.whole(written(transcript, upload, translation=self.translation))

    def _task(self, upload: Upload, job: Job) -> Task:
        version = self.names.version_for(upload.model, upload.language, translate=self.translation)
        job.model_version = version
        languages = () if upload.language is None else (upload.language,)
        options = StreamOptions(
            languages, speakers=upload.speakers, offline=True, translate=self.translation,
            prompt=upload.prompt,
        )  # fmt: skip
        return Task(job.id, version, options)


def written(transcript: Transcript, upload: Upload, *, translation: bool) -> Response:
    match upload.response_format:
        case "text":
            return PlainTextResponse(formats.plain(transcript))
        case "srt":
            return PlainTextResponse(formats.srt(transcript))
        case "vtt":
            return Response(formats.vtt(transcript), media_type="text/vtt")
        case "verbose_json":
            task = "translate" if translation else "transcribe"
            return JSONResponse(formats.verbose(transcript, task, upload.granularities))
        case "diarized_json":
            return JSONResponse(formats.diarized(transcript))
    return JSONResponse(formats.to_json(transcript))


async def _watch(request: Request, job: Job, answer: "_Answer") -> None:
    """Whoever has gone needs no answer."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not answer.is_over:
        job.wind_down(EndCause.CLIENT_VANISHED)


@frozen(eq=False)
class _Collected:
    transcript: Transcript

    async def __call__(self, piece: Piece) -> None:
        self.transcript.add(piece)


@frozen(eq=False)
class _Events:
    """Each window's words as soon as they are there."""

    transcript: Transcript
    answer: "_Answer"

    async def __call__(self, piece: Piece) -> None:
        number = len(self.transcript.segments)
        text, segments = self.transcript.add(piece)
        if text:
            await self.answer.send_event(formats.event("transcript.text.delta", delta=text))
        if self.transcript.speakers is not None:
            for place, each in enumerate(segments, number):
                fields = formats.diarized_segment(place, each)
                kind = str(fields.pop("type"))
                await self.answer.send_event(formats.event(kind, **fields))


@define(eq=False)
class _Answer:
    """One response, whole or as server-sent events."""

    _scope: Scope
    _receive: Receive
    _send: Send
    is_over: bool = False
    """Its end is being sent, or has been."""
    _events: bool = False

    async def whole(self, response: Response) -> None:
        self.is_over = True
        await response(self._scope, self._receive, self._send)

    async def fail(self, error: ApiError) -> None:
        """Once events flow, the status is said; the error is one of them."""
        if self.is_over:
            return
        if not self._events:
            await self.whole(error.response())
            return
        await self.send_event(formats.event("error", **error.body()))
        await self._end()

    async def begin_events(self) -> None:
        self._events = True
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send_event(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_events(self, transcript: Transcript) -> None:
        done = formats.event("transcript.text.done", text=transcript.text, usage=transcript.usage)
        await self.send_event(done)
        await self._end()

    async def _end(self) -> None:
        self.is_over = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
