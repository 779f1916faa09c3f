"""``ssasr bench``: the options and what to do with them."""

import argparse
import json
import sys
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
    from ssasr.bench.fault_run import parse_signals

    if not values["faults"]:
        return ()
    try:
        return parse_signals(values["faults"], values["seed"])
    except ValueError as error:
        raise UsageError(f"--faults: {error}") from None


def run_bench(values: dict[str, Any], given: argparse.Namespace) -> int:
    """0 when the run, or some number of streams, stays within the bound; else 1."""
    import trio
    from rich.console import Console

    from ssasr.bench import report
    from ssasr.bench.fault_run import bench_with_faults
    from ssasr.bench.run import find_capacity, load_recordings, run_streams, session_settings

    config = config_of(values)
    session_settings(config)
    recordings = load_recordings(config)
    console = Console(stderr=given.json, soft_wrap=True)
    if config.faults:
        if given.find_capacity or values["plots"]:
            raise UsageError("--faults goes with neither --find-capacity nor --plots")
        harm = trio.run(bench_with_faults, config, recordings)
        report.show_faults(console, harm)
        if given.json:
            sys.stdout.write(json.dumps(report.faults_as_json(config, harm), indent=1) + "\n")
        return 0 if harm.harmless else 1
    capacity = None
    if given.find_capacity:
        capacity, outcomes = trio.run(find_capacity, config, recordings)
    else:
        outcomes = [trio.run(run_streams, config, recordings, config.streams)]
    for outcome in outcomes:
        report.show(console, config, outcome)
    if capacity is not None:
        console.print(f"\n[bold]Capacity: {capacity} streams within {config.bound} s[/bold]")
    if given.json:
        sys.stdout.write(json.dumps(report.as_json(config, outcomes, capacity), indent=1) + "\n")
    if values["plots"]:
        for path in report.plot(Path(values["plots"]), outcomes, config.bound):
            console.print(f"wrote {path}")
    within = capacity > 0 if capacity is not None else not outcomes[0].failures
    return 0 if within else 1
