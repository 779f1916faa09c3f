"""A file and its form, as ``multipart/form-data``: to the disk as it comes, never into memory."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import BinaryIO

import trio
from attrs import frozen
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ssasr.gateway.openai.errors import ApiError, invalid
from ssasr.gateway.openai.models import DIARIZING

logging.getLogger("python_multipart").disabled = True  # it notes what strangers send

FORM_BYTES = 64 * 1024
"""Of one field."""
FIELDS = 100
ROUND = 1 << 20
"""Bytes that the form may take beside the file."""
PATIENCE = 60.0
"""Seconds that an upload has whatever its size."""
LEAST_RATE = 8_000
"""Bytes a second, on average, after that: a place must not be kept by one that dribbles."""
STALLED = 20.0
"""Seconds without a byte: less than the connection itself would wait, which ends without a word."""
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
TRANSLATION_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
LONGEST_PROMPT = 10_000
"""Characters."""


@frozen
class Upload:
    """``file`` is the caller's to close."""

    file: BinaryIO
    model: str
    language: str | None
    prompt: str
    response_format: str
    granularities: tuple[str, ...]
    stream: bool

    @property
    def speakers(self) -> bool:
        return self.response_format == "diarized_json"


async def read_upload(request: Request, most: int, *, translation: bool) -> Upload:
    """``most``: bytes of the file. Raises ApiError, ClientDisconnect."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "invalid_request", "The body is to be multipart/form-data")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most + ROUND:
        raise too_large(most)
    try:
        form = await _read_form(request, most + ROUND)
    except MultiPartException as error:
        raise ApiError(400, "invalid_request", error.message) from None
    except OSError as error:
        text = f"The server cannot keep the file: {error.strerror}"
        raise ApiError(507, "insufficient_storage", text) from None
    fields: dict[str, list[str]] = {}
    files = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append((name, value))
        else:
            fields.setdefault(name.removesuffix("[]"), []).append(value)
    try:
        return _checked(files, fields, translation=translation)
    except BaseException:
        for _, upload in files:
            upload.file.close()
        raise


def too_large(most: int) -> ApiError:
    text = f"The file is larger than {most >> 20} MiB (--max-upload)"
    return ApiError(413, "file_too_large", text, "file")


def too_slow() -> ApiError:
    return ApiError(408, "upload_too_slow", "The upload is too slow", "file")


class _FormParser(MultiPartParser):
    """Notes whether the form has an end: a part without one would stay open."""

    is_whole = False

    def on_end(self) -> None:
        self.is_whole = True


async def _read_form(request: Request, most: int) -> FormData:
    """Raises ApiError, ClientDisconnect, MultiPartException, OSError."""

    async def whole(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for data in body:
            yield data
        if not parser.is_whole:
            raise MultiPartException("The form has no end")

    async with (
        aclosing(_limited(request, most)) as body,
        aclosing(whole(body)) as checked,
    ):
        parser = _FormParser(
            request.headers, checked,
            max_files=1, max_fields=FIELDS, max_part_size=FORM_BYTES,
        )  # fmt: skip
        return await parser.parse()


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size, began = 0, trio.current_time()
    async with aclosing(request.stream()) as stream:
        while (data := await _next(stream)) is not None:
            size += len(data)
            if size > most:
                raise too_large(most - ROUND)
            if trio.current_time() - began > PATIENCE + size / LEAST_RATE:
                raise too_slow()
            yield data


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    """None: that was all. Raises ApiError, ClientDisconnect."""
    try:
        with trio.fail_after(STALLED):
            return await anext(stream, None)
    except trio.TooSlowError:
        raise too_slow() from None


def _checked(
    files: Sequence[tuple[str, UploadFile]],
    fields: dict[str, list[str]],
    *,
    translation: bool,
) -> Upload:
    """Raises ApiError."""
    if not files or files[0][0] != "file":
        raise ApiError(400, "missing_required_parameter", "There is no file", "file")
    upload = files[0][1]
    if not upload.size:
        raise ApiError(400, "invalid_audio", "The file is empty", "file")

    def text(name: str, default: str = "") -> str:
        return fields.get(name, [default])[-1] or default  # forms send what was left empty, too

    model = text("model", "whisper-1")
    usual = "diarized_json" if model == DIARIZING else "json"
    formats = TRANSLATION_FORMATS if translation else FORMATS
    response_format = _one_of("response_format", text("response_format", usual), formats)
    granularities = tuple(
        _one_of("timestamp_granularities", each or "segment", GRANULARITIES)
        for each in fields.get("timestamp_granularities", [""])
    )
    _check_temperature(text("temperature", "0"))
    if len(text("prompt")) > LONGEST_PROMPT:
        raise invalid("prompt", f"It has more than {LONGEST_PROMPT} characters")
    stream = _one_of("stream", text("stream", "false").lower(), ("true", "false")) == "true"
    if stream and response_format not in ("json", "text", "diarized_json"):
        raise invalid("stream", f"A stream has no format {response_format}")
    return Upload(
        upload.file, model, text("language") or None, text("prompt"),
        response_format, granularities, stream and not translation,
    )  # fmt: skip


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise invalid(name, f"{value!r:.60} is none of {', '.join(allowed)}")
    return value


def _check_temperature(value: str) -> None:
    """It has no effect. OpenAI's draws words by chance, and with 0 only where the likeliest ones
    repeat themselves; here the likeliest ones are taken, and a repetition is cut."""
    try:
        fits = 0 <= float(value) <= 1
    except ValueError:
        fits = False
    if not fits:
        raise invalid("temperature", "It is a number from 0 to 1")
