"""``ssasr bench``: the options and what to do with them."""

import argparse
from urllib.parse import parse_qsl

from ssasr.cli import options
from ssasr.cli.options import Option, Values, path, url


def numbers(text: str) -> tuple[int, ...]:
    return tuple(options.count(name) for name in options.names(text))


def parameters(text: str) -> dict[str, object]:
    try:
        return dict(parse_qsl(text, strict_parsing=True))
    except ValueError:
        raise ValueError(f"{text!r} is not of the form name=value&name=value") from None


def milliseconds(text: str) -> int:
    number = options.count(text)
    if not 50 <= number <= 1_000:
        raise ValueError(f"{text} is not from 50 to 1000")
    return number


def minutes(text: str) -> float:
    number = options.seconds(text)
    if not number:
        raise ValueError("0 minutes")
    return number


OPTIONS = (
    url("--endpoint", "address of the server", "ws://localhost:8080/v3/ws"),
    Option("--api-key", "key that opens the sessions", "self-hosted", metavar="KEY"),
    Option("--streams", "clients at once; with --find-capacity, to begin with", 8,
           options.count, "N"),
    Option("--bound", "seconds: what p95 of the finalization latency may be", 1.0,
           options.seconds, "S"),
    Option("--seconds", "how long each client speaks, in whole recordings", 30.0,
           options.seconds, "S"),
    path("--audio", "a recording, or a folder of recordings; default: those that come with the "
         "package", "FILE|DIR"),
    path("--transcripts", "one JSON object a line: file, reference, perhaps speech", "MANIFEST"),
    Option("--parameters", "further session parameters, as in a URL's query", {}, parameters,
           "QUERY"),
    Option("--gap", "seconds of silence after each recording", 2.0, options.seconds, "S"),
    Option("--message-ms", "audio in one message", 100, milliseconds, "MS"),
    Option("--seed", "of everything that is drawn at random", 1, options.count, "N"),
    Option("--pids", "processes to watch; default: what serves the endpoint on this machine", (),
           numbers, "LIST"),
    Option("--faults", "do this to processes of this machine meanwhile (kill@S, term@S, stop@S+S, "
           "slow@S+S, kill*N/S: N at random moments, S seconds apart), and say what it did to the "
           "words", metavar="SCHEDULE"),
    Option("--fault-target", "part of the command line of the processes for --faults",
           "ssasr engine", metavar="TEXT"),
    Option("--neighbours", "a client that misbehaves beside the streams: refused (the server takes "
           "no more than --streams, and clients come in vain) or deaf (one sends and never reads); "
           "says what the streams notice", metavar="KIND", choices=("refused", "deaf")),
    Option("--soak", "minutes of churn: --streams clients at once, 20 to 60 s each, that end in "
           "four ways; says what grew and which sessions ended otherwise", None, minutes, "M"),
    path("--plots", "draw plots into this folder", "DIR"),
)  # fmt: skip


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--find-capacity", action="store_true", help="look for the most clients within the bound"
    )
    sub.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def run_bench(values: Values, given: argparse.Namespace) -> int:
    """0 when all stays within the bound, or comes through what is done to it; else 1."""
    from ssasr.bench.studies import study

    return 0 if study(values, search=given.find_capacity, as_json=given.json) else 1
