"""``ssasr bench``: the options and what to do with them."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ssasr.cli import options
from ssasr.cli.options import Option
from ssasr.errors import UsageError


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
    Option("--endpoint", "address of the server", "ws://localhost:8080/v3/ws", metavar="URL"),
    Option("--api-key", "key that opens the sessions", "self-hosted", metavar="KEY"),
    Option("--streams", "clients at once; with --find-capacity, to begin with", 8,
           options.count, "N"),
    Option("--bound", "seconds: what p95 of the finalization latency may be", 1.0,
           options.seconds, "S"),
    Option("--seconds", "how long each client speaks, in whole recordings", 30.0,
           options.seconds, "S"),
    Option("--audio", "a recording, or a folder of recordings; default: those that come with the "
           "package", metavar="FILE|DIR"),
    Option("--transcripts", "one JSON object a line: file, reference, perhaps speech",
           metavar="MANIFEST"),
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
    Option("--plots", "draw plots into this folder", metavar="DIR"),
)  # fmt: skip


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--find-capacity", action="store_true", help="look for the most clients within the bound"
    )
    sub.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def config_of(values: dict[str, Any]) -> Any:
    """Raises UsageError."""
    from ssasr.bench.run import BenchConfig

    if values["transcripts"] and not values["audio"]:
        raise UsageError("--transcripts is for --audio: where are the recordings?")
    return BenchConfig(
        endpoint=values["endpoint"],
        key=values["api_key"],
        streams=values["streams"],
        bound=values["bound"],
        seconds=values["seconds"],
        audio=Path(values["audio"]) if values["audio"] else None,
        transcripts=Path(values["transcripts"]) if values["transcripts"] else None,
        parameters=values["parameters"],
        gap=values["gap"],
        message_seconds=values["message_ms"] / 1_000,
        seed=values["seed"],
        pids=values["pids"],
        faults=faults_of(values),
        fault_target=values["fault_target"],
    )


def faults_of(values: dict[str, Any]) -> Any:
    """Raises UsageError."""
    from ssasr.bench.faults import parse_signals

    if not values["faults"]:
        return ()
    try:
        return parse_signals(values["faults"], values["seed"])
    except ValueError as error:
        raise UsageError(f"--faults: {error}") from None


def run_bench(values: dict[str, Any], given: argparse.Namespace) -> int:
    """0 when all stays within the bound, or comes through what is done to it; else 1."""
    from rich.console import Console

    from ssasr.bench.report import conditions
    from ssasr.bench.run import load_recordings, session_settings

    run = study_of(values, given)
    config = config_of(values)
    session_settings(config)
    before = conditions(config)
    console = Console(stderr=given.json, soft_wrap=True)
    well, result = run(console, config, load_recordings(config), values)
    if given.json:
        sys.stdout.write(json.dumps({"conditions": before, **result}, indent=1) + "\n")
    return 0 if well else 1


Result = tuple[bool, dict[str, object]]
"""Whether all went well, and the result as JSON."""


def study_of(values: dict[str, Any], given: argparse.Namespace) -> Callable[..., Result]:
    """What was asked for. Raises UsageError for more than one thing."""
    studies = {"faults": run_faults, "neighbours": run_neighbours, "soak": run_soak}
    asked = [name for name in studies if values[name]]
    others = ["find-capacity"] * given.find_capacity + ["plots"] * bool(values["plots"])
    if len(asked) > 1 or (asked and others):
        together = ", ".join(f"--{name}" for name in [*asked, *others])
        raise UsageError(f"one at a time: {together}")
    if asked:
        return studies[asked[0]]
    return run_search if given.find_capacity else run_once


def run_once(console: Any, config: Any, recordings: Any, values: dict[str, Any]) -> Result:
    import trio

    from ssasr.bench import report
    from ssasr.bench.run import run_streams

    outcome = trio.run(run_streams, config, recordings, config.streams)
    show_runs(console, config, [outcome], values)
    return not outcome.failures, report.as_json([outcome], None)


def run_search(console: Any, config: Any, recordings: Any, values: dict[str, Any]) -> Result:
    import trio

    from ssasr.bench import report
    from ssasr.bench.run import find_capacity

    capacity, outcomes = trio.run(find_capacity, config, recordings)
    show_runs(console, config, outcomes, values)
    console.print(f"\n[bold]Capacity: {capacity} streams within {config.bound} s[/bold]")
    return capacity > 0, report.as_json(outcomes, capacity)


def show_runs(console: Any, config: Any, outcomes: Any, values: dict[str, Any]) -> None:
    from ssasr.bench import report

    for outcome in outcomes:
        report.show(console, config, outcome)
    if values["plots"]:
        for path in report.plot(Path(values["plots"]), outcomes, config.bound):
            console.print(f"wrote {path}")


def run_faults(console: Any, config: Any, recordings: Any, values: dict[str, Any]) -> Result:
    import trio

    from ssasr.bench import report
    from ssasr.bench.fault_run import bench_with_faults

    outcome = trio.run(bench_with_faults, config, recordings)
    report.show_faults(console, outcome)
    return outcome.harmless, report.faults_as_json(outcome)


def run_neighbours(console: Any, config: Any, recordings: Any, values: dict[str, Any]) -> Result:
    import trio

    from ssasr.bench import report
    from ssasr.bench.neighbours import bench_with_neighbour

    outcome = trio.run(bench_with_neighbour, config, recordings, values["neighbours"])
    report.show_neighbour(console, outcome)
    return outcome.harmless, report.neighbour_as_json(outcome)


def run_soak(console: Any, config: Any, recordings: Any, values: dict[str, Any]) -> Result:
    import trio

    from ssasr.bench import report
    from ssasr.bench.soak import soak

    outcome = trio.run(soak, config, recordings, values["soak"], console.print)
    report.show_soak(console, outcome)
    return not outcome.unexplained, report.soak_as_json(outcome)
