"""The tables of the operator's trial in docs/monitoring.md: of each fault the newest result, and
every hour of churn."""

from benchmarks.inserted import ROOT, Inserted


def faults(results: dict) -> list[str]:
    newest = {}
    for result in sorted(results.values(), key=lambda result: result.get("time", "")):
        for name, found in result.get("operator_trial", {}).items():
            newest[name] = {"load_average": result["load_average"], **found}
    columns = ("fault", "clients, by close code", "words that differ", "longest pause",
               "alerts, after", "the line that says why (gateway)", "load")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for name, found in sorted(newest.items()):
        codes = _codes(found["clients"])
        if found["late_clients"]:
            codes += f"; of those who came later {_codes(found['late_clients'])}"
        ended_well = set(found["clients"]) == {"1000"}
        words = f"{found['words_lost']} of {found['words']:,}" if ended_well else "sessions ended"
        if (late := found.get("clients_late_s", 0.0)) > 1.0:
            words += f" (a client was late itself, {late:.0f} s)"
        pause = f"{found['longest_pause_s']:.1f} s" if ended_well else ""
        cells = (name, codes, words, pause, _alerts(found["alerts"]), _line(found["line"]),
                 f"{found['load_average']:.0f}")  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def calm(results: dict) -> list[str]:
    lines = [
        "| minutes | stand for | sessions | alerts, after | load |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results.values():
        if found := result.get("calm"):
            cells = (f"{found['minutes']:.0f}", f"{found['stands_for_minutes']:.0f}",
                     str(found["sessions"]), _alerts(found["alerts"]),
                     f"{found['load_average']:.0f}")  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _codes(codes: dict) -> str:
    return ", ".join(f"{count} with {code}" for code, count in codes.items())


def _alerts(alerts: dict) -> str:
    return ", ".join(f"`{name}` {after} s" for name, after in alerts.items()) or "none"


def _line(line: dict | None) -> str:
    if line is None:
        return "none"
    why = str(line.get("error") or line.get("cause") or line.get("sessions", ""))
    return ", ".join(filter(None, (f"`{line['event']}`", why.replace("|", ""))))


def tables(results: dict) -> str:
    """Both, with a line between them."""
    return "\n".join([*faults(results), "", *calm(results), ""])


TABLE = Inserted(ROOT / "docs" / "monitoring.md", "operator's trial", tables)
