"""``ssasr bench``: what can be measured, by the command's options (``cli.bench``)."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import frozen
from rich.console import Console

from ssasr.bench import report
from ssasr.bench.fault_run import bench_with_faults
from ssasr.bench.faults import Fault, parse_signals
from ssasr.bench.neighbours import bench_with_neighbour
from ssasr.bench.recordings import Recording
from ssasr.bench.run import (
    BenchConfig,
    Outcome,
    find_capacity,
    load_recordings,
    run_streams,
    session_settings,
)
from ssasr.bench.soak import soak
from ssasr.errors import UsageError

Values = Mapping[str, Any]
Result = tuple[bool, dict[str, object]]
"""Whether all went well, and the result as JSON."""


def study(values: Values, *, search: bool, as_json: bool) -> bool:
    """Measure what was asked for, show it, and say whether all went well. Raises UsageError."""
    run = study_of(values, search=search)
    config = config_of(values)
    session_settings(config)
    before = report.conditions(config)
    console = Console(stderr=as_json, soft_wrap=True)
    well, result = run(Studies(console, config, load_recordings(config), values))
    if as_json:
        sys.stdout.write(json.dumps({"conditions": before, **result}, indent=1) + "\n")
    return well


def study_of(values: Values, *, search: bool) -> "Callable[[Studies], Result]":
    """Raises UsageError for more than one thing."""
    studies = {"faults": Studies.faults, "neighbours": Studies.neighbours, "soak": Studies.soak}
    asked = [name for name in studies if values[name]]
    others = ["find-capacity"] * search + ["plots"] * bool(values["plots"])
    if len(asked) > 1 or (asked and others):
        together = ", ".join(f"--{name}" for name in [*asked, *others])
        raise UsageError(f"one at a time: {together}")
    if asked:
        return studies[asked[0]]
    return Studies.search if search else Studies.once


def config_of(values: Values) -> BenchConfig:
    """Raises UsageError."""
    if values["transcripts"] and not values["audio"]:
        raise UsageError("--transcripts is for --audio: where are the recordings?")
    return BenchConfig(
        endpoint=values["endpoint"],
        key=values["api_key"],
        streams=values["streams"],
        bound=values["bound"],
        seconds=values["seconds"],
        audio=values["audio"],
        transcripts=values["transcripts"],
        parameters=values["parameters"],
        gap=values["gap"],
        message_seconds=values["message_ms"] / 1_000,
        seed=values["seed"],
        pids=values["pids"],
        faults=faults_of(values),
        fault_target=values["fault_target"],
    )


def faults_of(values: Values) -> Sequence[Fault]:
    """Raises UsageError."""
    if not values["faults"]:
        return ()
    try:
        return parse_signals(values["faults"], values["seed"])
    except ValueError as error:
        raise UsageError(f"--faults: {error}") from None


@frozen
class Studies:
    """``values``: the command's options."""

    console: Console
    config: BenchConfig
    recordings: list[Recording]
    values: Values

    def once(self) -> Result:
        outcome = trio.run(run_streams, self.config, self.recordings, self.config.streams)
        self._show([outcome])
        return not outcome.failures, report.as_json([outcome], None)

    def search(self) -> Result:
        capacity, outcomes = trio.run(find_capacity, self.config, self.recordings)
        self._show(outcomes)
        bound = self.config.bound
        self.console.print(f"\n[bold]Capacity: {capacity} streams within {bound} s[/bold]")
        return capacity > 0, report.as_json(outcomes, capacity)

    def _show(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            report.show(self.console, self.config, outcome)
        if self.values["plots"]:
            for path in report.plot(self.values["plots"], outcomes, self.config.bound):
                self.console.print(f"wrote {path}")

    def faults(self) -> Result:
        outcome = trio.run(bench_with_faults, self.config, self.recordings)
        report.show_faults(self.console, outcome)
        return outcome.harmless, report.faults_as_json(outcome)

    def neighbours(self) -> Result:
        kind = self.values["neighbours"]
        outcome = trio.run(bench_with_neighbour, self.config, self.recordings, kind)
        report.show_neighbour(self.console, outcome)
        return outcome.harmless, report.neighbour_as_json(outcome)

    def soak(self) -> Result:
        minutes, say = self.values["soak"], self.console.print
        outcome = trio.run(soak, self.config, self.recordings, minutes, say)
        report.show_soak(self.console, outcome)
        return not outcome.unexplained, report.soak_as_json(outcome)
