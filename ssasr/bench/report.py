"""What a bench says: a table for people, JSON for programs, plots for both."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import asdict
from rich.console import Console
from rich.table import Table

from ssasr import __version__
from ssasr.bench.fault_run import FaultOutcome
from ssasr.bench.measure import Spread, spread
from ssasr.bench.neighbours import NeighbourOutcome, Streams
from ssasr.bench.run import BenchConfig, Outcome
from ssasr.bench.soak import SoakOutcome
from ssasr.errors import SsasrError

LATENCIES = (
    ("first partial", "first_partial"),
    ("word seen", "first_seen"),
    ("word final", "final"),
    ("finalization", "finalization"),
    ("drain", "drain"),
)
MOST_PROBLEMS = 20
"""Lines about single sessions that are shown; JSON has all."""


class PlotError(SsasrError):
    """Plots were asked for and cannot be drawn."""


def machine() -> dict[str, object]:
    """What runs where, and how busy it is."""
    return {
        "version": __version__,
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def conditions(config: BenchConfig) -> dict[str, object]:
    """Under what the figures were taken."""
    return {
        **machine(),
        "endpoint": config.endpoint,
        "parameters": config.parameters,
        "audio": str(config.audio or "bundled"),
        "message_seconds": config.message_seconds,
        "seconds": config.seconds,
        "bound": config.bound,
        "seed": config.seed,
    }


def _commit() -> str | None:
    """Of the checkout that this package runs from, if it is one."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


# -- JSON ------------------------------------------------------------------------------------------


def as_json(outcomes: Sequence[Outcome], capacity: int | None) -> dict[str, object]:
    """``capacity``: None unless it was looked for."""
    return {
        "capacity": capacity,
        "runs": [_run_json(outcome) for outcome in outcomes],
    }


def _run_json(outcome: Outcome) -> dict[str, object]:
    samples = outcome.samples
    return {
        "streams": outcome.streams,
        "seconds": round(outcome.seconds, 1),
        "audio_seconds": round(samples.audio_seconds, 1),
        "latencies": {key: _spread_json(getattr(outcome, key)) for _, key in LATENCIES},
        "turns_unmatched": samples.unmatched,
        "words": samples.words,
        "wer": outcome.wer,
        "closes": {str(code): count for code, count in sorted(samples.codes.items())},
        "problems": samples.problems,
        "messages": {"sent": samples.messages, "received": samples.received},
        "processes": [
            {
                "pid": each.pid,
                "name": each.name,
                "cpu_seconds": round(each.cpu_seconds, 2),
                "cores": round(each.cores, 3),
                "cpu_us_per_message": _microseconds(each.cpu_per_message),
                "rss": each.rss,
                "rss_before": each.rss_before,
            }
            for each in outcome.processes
        ],
        "client": {
            "cores": round(outcome.client.cores, 3),
            "lateness": _spread_json(outcome.client.lateness),
            "bottleneck": outcome.client.bottleneck or None,
        },
        "failures": list(outcome.failures),
    }


def _spread_json(found: Spread) -> dict[str, float | int | None]:
    values = {"p50": found.p50, "p95": found.p95, "p99": found.p99}
    rounded = {name: None if v is None else round(v, 4) for name, v in values.items()}
    return {"count": found.count, **rounded}


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 1)


# -- text ------------------------------------------------------------------------------------------


def show(console: Console, config: BenchConfig, outcome: Outcome) -> None:
    """One run."""
    samples, client = outcome.samples, outcome.client
    console.print(
        f"\n[bold]{outcome.streams} streams[/bold], {samples.audio_seconds:.0f} s of audio in "
        f"{outcome.seconds:.0f} s, {samples.words} words"
    )
    console.print(_latency_table(outcome))
    wer = "not known" if outcome.wer is None else f"{outcome.wer:.1%}"
    closes = ", ".join(f"{count}x {code}" for code, count in sorted(samples.codes.items()))
    console.print(f"WER {wer} · closes {closes or 'none'} · ends elsewhere {samples.unmatched}")
    if outcome.processes:
        console.print(_process_table(outcome))
    late = "-" if client.lateness.p99 is None else f"{client.lateness.p99 * 1e3:.1f} ms"
    console.print(f"clients: {client.cores:.0%} of a core, p99 {late} late", highlight=False)
    if client.bottleneck:
        console.print(f"[yellow]The client is the bottleneck: {client.bottleneck}.[/yellow]")
    for problem, count in samples.problems.items():
        console.print(f"[red]{count} streams: {problem}[/red]", highlight=False)
    for failure in outcome.failures:
        console.print(f"[red]Beyond the bound: {failure}[/red]", highlight=False)


def _latency_table(outcome: Outcome) -> Table:
    table = Table("seconds", "n", "p50", "p95", "p99", box=None, pad_edge=False)
    for title, key in LATENCIES:
        found: Spread = getattr(outcome, key)
        values = (found.p50, found.p95, found.p99)
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(title, str(found.count), *shown)
    return table


def _process_table(outcome: Outcome) -> Table:
    table = Table("process", "pid", "cores", "µs a message", "RSS MiB", box=None, pad_edge=False)
    for each in outcome.processes:
        cost = _microseconds(each.cpu_per_message)
        table.add_row(
            each.name, str(each.pid), f"{each.cores:.2f}",
            "-" if cost is None else f"{cost:.0f}", f"{each.rss / 2**20:.0f}",
        )  # fmt: skip
    return table


# -- faults ----------------------------------------------------------------------------------------


def faults_as_json(outcome: FaultOutcome) -> dict[str, object]:
    return asdict(outcome)


def show_faults(console: Console, outcome: FaultOutcome) -> None:
    """What was done, what it did to the words, and for how long they stood still."""
    damage, worst = outcome.damage, outcome.pauses.worst
    done = ", ".join(f"{count}x {kind}" for kind, count in outcome.faults.items())
    closes = ", ".join(f"{count}x {code}" for code, count in outcome.codes.items())
    colour = "green" if outcome.harmless else "red"
    console.print(f"\n[bold]{outcome.streams} streams[/bold], {done or 'nothing was done'}")
    console.print(
        f"[{colour}]{damage.words} words: {damage.lost} lost, {damage.duplicated} duplicated, "
        f"{damage.changed} changed[/{colour}], {damage.moved} moved; "
        f"{damage.identical} streams alike in every message",
        highlight=False,
    )
    if damage.labelled:
        text = f"{damage.relabelled} of {damage.labelled} words with another speaker"
        console.print(text, highlight=False)
    if worst.p50 is not None:
        text = f"longest pause after each: p50 {worst.p50:.2f} s, p95 {worst.p95:.2f} s"
        console.print(text, highlight=False)
    console.print(f"closes {closes}", highlight=False)


# -- neighbours and soak ---------------------------------------------------------------------------


def neighbour_as_json(outcome: NeighbourOutcome) -> dict[str, object]:
    seen = outcome.neighbour
    took = spread(seen.rejections)
    return {
        "neighbour": outcome.kind,
        "alone": _streams_json(outcome.alone),
        "beside": _streams_json(outcome.beside),
        "refusals": took.count,
        "refusal_codes": sorted(seen.rejection_codes),
        "refusal_p50": took.p50,
        "refusal_p95": took.p95,
        "gateway_growth_mib": seen.growth_mib,
        "audio_taken_s": round(seen.audio_taken),
        "given_up_after_s": seen.given_up_after,
        "closes": outcome.ends,
    }


def _streams_json(streams: Streams) -> dict[str, object]:
    return {
        "codes": streams.codes,
        "words": streams.words,
        "lag_p50": streams.lag.p50,
        "lag_p95": streams.lag.p95,
        "finalization_p95": streams.finalization.p95,
    }


def show_neighbour(console: Console, outcome: NeighbourOutcome) -> None:
    """The streams without the neighbour and with it, and what became of the neighbour."""
    table = Table("streams", "closes", "words", "word seen p95", "finalization p95",
                  box=None, pad_edge=False)  # fmt: skip
    for title, streams in (("alone", outcome.alone), ("beside it", outcome.beside)):
        closes = ", ".join(f"{count}x {code}" for code, count in streams.codes.items())
        latencies = [streams.lag.p95, streams.finalization.p95]
        shown = ["-" if value is None else f"{value:.3f}" for value in latencies]
        table.add_row(title, closes, str(streams.words), *shown)
    console.print(table)
    seen, took = outcome.neighbour, spread(outcome.neighbour.rejections)
    if took.p95 is not None:
        codes = ", ".join(map(str, sorted(seen.rejection_codes)))
        text = f"{took.count} clients rejected with {codes}, p95 after {took.p95:.3f} s"
        console.print(text, highlight=False)
    if seen.audio_taken:
        until = "never" if seen.given_up_after is None else f"after {seen.given_up_after:.0f} s"
        text = f"{seen.audio_taken:.0f} s of audio taken of it, given up {until}"
        console.print(text, highlight=False)
    if seen.growth_mib is not None:
        console.print(f"the gateway grew by {seen.growth_mib:.1f} MiB", highlight=False)


def soak_as_json(outcome: SoakOutcome) -> dict[str, object]:
    return {
        "soak_minutes": outcome.minutes,
        "streams": outcome.streams,
        "sessions": outcome.sessions,
        "endings": outcome.endings,
        "codes": {str(code): count for code, count in outcome.codes.items()},
        "ends": outcome.ends,
        "unexplained_closes": len(outcome.unexplained),
        "unexplained": outcome.unexplained,
        "audio_hours": outcome.audio_hours,
        "processes": {name: asdict(each) for name, each in outcome.processes.items()},
    }


def show_soak(console: Console, outcome: SoakOutcome) -> None:
    """How the sessions ended, and what grew."""
    endings = ", ".join(f"{count}x {ending}" for ending, count in outcome.endings.items())
    console.print(f"\n[bold]{outcome.sessions} sessions[/bold], {outcome.audio_hours} h of audio")
    console.print(f"meant to {endings}", highlight=False)
    if outcome.ends is None:
        console.print("[yellow]/metrics was not read: closes as the clients saw them[/yellow]")
    table = Table("process", "cores", "RSS MiB", "most", "MiB/h", "95 %", "descriptors", "threads",
                  box=None, pad_edge=False)  # fmt: skip
    for name, each in outcome.processes.items():
        slope = "-" if each.slope_mib_per_hour is None else str(each.slope_mib_per_hour)
        interval = "-" if each.slope_95 is None else "{} to {}".format(*each.slope_95)
        table.add_row(
            name, f"{each.cores:.2f}", f"{each.rss_mib_before:.0f}", f"{each.rss_mib_most:.0f}",
            slope, interval,
            f"{each.fds_before} to {each.fds_after}",
            f"{each.threads_before} to {each.threads_after}",
        )  # fmt: skip
    console.print(table)
    colour = "red" if outcome.unexplained else "green"
    count = len(outcome.unexplained)
    console.print(f"[{colour}]{count} closes otherwise than meant[/{colour}]", highlight=False)
    for problem in outcome.unexplained[:MOST_PROBLEMS]:
        console.print(f"[red]{problem}[/red]", highlight=False)


# -- plots -----------------------------------------------------------------------------------------


def plot(folder: Path, outcomes: Sequence[Outcome], bound: float) -> list[Path]:
    """Latency over time for each run, and against the number of streams. Raises PlotError."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise PlotError("--plots needs matplotlib: pip install 'ssasr[bench]'") from None
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_plot_over_time(folder, outcome, bound) for outcome in outcomes]
    if len(outcomes) > 1:
        paths.append(_plot_against_streams(folder, outcomes, bound))
    return paths


def _plot_over_time(folder: Path, outcome: Outcome, bound: float) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    points = sorted(outcome.samples.finalization)
    start = points[0][0] if points else 0.0
    axes.plot([at - start for at, _ in points], [latency for _, latency in points], ".")
    axes.axhline(bound, color="red", linewidth=1)
    axes.set(xlabel="seconds", ylabel="finalization latency, s", title=f"{outcome.streams} streams")
    path = folder / f"latency-{outcome.streams}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _plot_against_streams(folder: Path, outcomes: Sequence[Outcome], bound: float) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    runs = sorted(outcomes, key=lambda outcome: outcome.streams)
    for name in ("p50", "p95", "p99"):
        values = [getattr(run.finalization, name) for run in runs]
        axes.plot([run.streams for run in runs], values, "o-", label=name)
    axes.axhline(bound, color="red", linewidth=1)
    axes.set(xlabel="streams", ylabel="finalization latency, s")
    axes.legend()
    path = folder / "latency-against-streams.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
