"""``ssasr transcribe`` and ``ssasr mic``: the options and what to do with them."""

import argparse
import json

from ssasr.cli import options
from ssasr.cli.options import Option, Values, switch, url
from ssasr.client.keyterms import read_keyterms

CLIENT = (
    url("--endpoint", "address of the server", "ws://localhost:8080/v3/ws"),
    Option("--api-key", "key that opens the session", "self-hosted", metavar="KEY"),
    Option("--speech-model", "model to ask for; default: the server's", metavar="M"),
    Option(
        "--language",
        "language code, several with commas between, or multi; default: the model's",
        metavar="L",
    ),
    switch("--format-turns", "punctuation and casing", True),
    Option("--keyterms", "names and rare words that may be said: a file with one a line, or a list "
           "with commas between", None, read_keyterms, "FILE|LIST"),
)  # fmt: skip
TRANSCRIBE = (
    *CLIENT,
    Option("--pace", "realtime, as if it were being spoken, or fast", "realtime",
           choices=("realtime", "fast")),
    Option("--redact", "hide what is personal: all, or policies with commas between; the "
           "server must allow it", metavar="LIST"),
    Option("--channel", "channel to take, from 1; default: all mixed, or the loudest where "
           "they cancel each other", None, options.count, "N"),
    Option("--output", "write the transcript there instead of showing it; a directory for "
           "several recordings", metavar="FILE|DIR"),
    Option("--format", "text, srt, vtt or json; default: by the suffix of --output, else "
           "text", choices=("text", "srt", "vtt", "json")),
)  # fmt: skip
MIC = (
    *CLIENT,
    Option("--device-name", "microphone: its number or part of its name; default: the "
           "system's", metavar="NAME"),
)  # fmt: skip


def run_transcribe(values: Values, given: argparse.Namespace) -> int:
    from ssasr.client.recordings import OutputChoice, transcribe_all
    from ssasr.client.transcribe import Request

    request = Request(
        "-", values["endpoint"], values["api_key"], values["pace"], session_parameters(values),
        values["channel"],
    )  # fmt: skip
    if given.speakers:
        request = request.with_speakers()
    choice = OutputChoice(tuple(given.files), values["output"], values["format"], given.json)
    return transcribe_all(choice, request)


def session_parameters(values: Values) -> dict[str, object]:
    codes = [code.strip() for code in (values["language"] or "").split(",")]
    several = len(codes) > 1
    return {
        "speech_model": values["speech_model"],
        "language": "multi" if several else values["language"],
        "language_codes": json.dumps(codes) if several else None,
        "format_turns": "true" if values["format_turns"] else None,
        "keyterms_prompt": json.dumps(values["keyterms"]) if values["keyterms"] else None,
    } | redaction_parameters(values.get("redact"))


def redaction_parameters(redact: str | None) -> dict[str, object]:
    """``redact``: policies with commas between, or all."""
    if redact is None:
        return {}
    policies = {} if redact == "all" else {"redact_pii_policies": redact}
    return {"redact_pii": "true", "redact_pii_sub": "entity_name", **policies}


def transcribe_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files", metavar="FILE", nargs="+",
        help="recording (WAV, FLAC, OGG, MP3 …), directory of recordings, pattern, or - for "
        "standard input",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="one JSON message a line")
    sub.add_argument("--speakers", action="store_true", help="say who speaks, too")


def run_mic(values: Values, given: argparse.Namespace) -> int:
    from ssasr.client import microphone

    request = microphone.Request(values["endpoint"], values["api_key"], session_parameters(values))
    return microphone.main(request, values["device_name"], only_list=given.list_devices)


def mic_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--list-devices", action="store_true", help="show the microphones and exit")
