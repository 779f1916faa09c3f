"""README's table of figures, made from ``benchmarks/results``; ``benchmarks.report`` writes it."""

from benchmarks.inserted import ROOT, Inserted


def start(results):
    seconds = results["start"]["cold_start"]["engine english (Whisper tiny.en)"]
    return f"{max(seconds['warm_s'])} s, page cache empty {max(seconds['cold_s'])} s"


def kills(name):
    def figure(results):
        result = results[name]
        damage, pauses = result["damage"], result["pauses"]["worst"]
        broken = damage["lost"] + damage["duplicated"] + damage["changed"]
        text = f"{broken} of {damage['words']:,} words lost, repeated or changed"
        if pauses["count"] > 1:
            p50, p95 = pauses["p50"], pauses["p95"]
            return f"{text}; longest pause after a kill p50 {p50:.2f} s, p95 {p95:.2f} s"
        return f"{text}; longest pause {result['pauses']['longest']:.2f} s"

    return figure


def refusals(results):
    result = results["neighbour-refused"]
    p50, p95 = round(1_000 * result["refusal_p50"]), round(1_000 * result["refusal_p95"])
    later = result["beside"]["lag_p95"] / result["alone"]["lag_p95"] - 1
    return f"{p50} / {p95} ms; the others' words come {100 * later:.0f} % later (p95)"


def gateway_cpu(results):
    each = [results[f"load-{n}"]["gateway_us_per_message"] / 1_000 for n in (50, 200, 320)]
    return ", ".join(f"{milliseconds:.2f}" for milliseconds in each) + " ms"


def gateway_memory(results):
    gateway = results["memory"]["memory"]["scripted"]["gateway"]
    silent, speaking = gateway["idle_session_kib"], gateway["further_active_kib"]
    load = results["load-200"]["rss_per_session_kib"]
    return f"{silent} KiB silent, {speaking} KiB speaking; {load} KiB each of 200 speaking"


def soak(results):
    result = results["soak"]
    return f"{result['unexplained_closes']} unexplained closes, {result['failovers']} failovers"


def quality(results):
    (row,) = results["whisper-tiny-held-read"]["whisper_quality"]
    return f"{row['wer']:.1f} %, {row['offline_wer']:.1f} % ({row['clips']} clips)"


def sizing(results):
    dense = results["size-few"]["sizing"]["10 streams"]["ttfs_p95_s"]
    many = results["size-speech"]["sizing"]["10 streams"]["ttfs_p95_s"]
    return f"ten: {dense:.1f} s with one dense recording, {many:.1f} s with many speakers"


def demo_words(results):
    return f"{100 * results['size-few']['sizing']['6 streams']['wer']:.1f} %"


def speakers(results):
    found = results["speakers-judged"]["speakers"]["all"]
    live, revised = (f"{100 * found[part][0]:.1f} %" for part in ("live", "revised"))
    return f"{live}, {revised} ({found['conversations']} conversations)"


WHISPER_KILLS = (
    "faults --schedule 'kill*20/7' --clients 2 --engines 2 "
    "--engine-options '--model english --device cpu' --speech FOLDER"
)
ROWS = (
    ("English engine from exec to ready, weights cached, slowest of three", start,
     "operations start"),
    ("200 engines killed under twenty live streams, one every 2.5 s", kills("kills-200"),
     "faults --schedule 'kill*200/2.5'"),
    ("20 Whisper engines killed under two live streams, one every 7 s", kills("kills-whisper"),
     WHISPER_KILLS),
    ("both engines replaced one after the other under twenty live streams", kills("upgrade"),
     "faults --schedule upgrade@6 --seconds 25 --engines 2"),
    ("a client beyond capacity is rejected within, p50 / p95", refusals, "neighbours refused"),
    ("gateway CPU for 100 ms of audio at 50, 200 and 320 streams", gateway_cpu, "gateway_load"),
    ("gateway memory for a session", gateway_memory, "operations memory"),
    ("one hour of churn, 1,301 sessions", soak, "soak"),
    ("word error rate, read English held out: streaming, offline (same weights)", quality,
     "whisper_quality --half held --categories read_en --clock cpu"),
    ("live English streams on the two cores with turns ended within 1.5 s (p95)", sizing,
     "operations size --streams 6 10 --seconds 35"),
    ("word error rate of the demo recordings, six live streams", demo_words,
     "operations size --streams 6 --seconds 35"),
    ("words with the right speaker, conversations of 2 to 6: live, revised", speakers,
     "speakers.evaluate FOLDER --half judged"),
)  # fmt: skip
"""What is measured; its figure, from results by file name; the module that measures it."""
USED = (
    "start", "kills-200", "kills-whisper", "upgrade", "neighbour-refused", "load-50", "load-200",
    "load-320", "memory", "soak", "whisper-tiny-held-read", "size-few", "size-speech",
    "speakers-judged",
)  # fmt: skip


def table(results: dict) -> str:
    """The whole table, with the line that says under what."""
    used = [results[name] for name in USED]
    machines = sorted({result["machine"].split(",")[0] for result in used})
    days = sorted(result["time"][:10] for result in used)
    under = (
        f"Two shared cores of {' and '.join(machines)}, no GPU, {days[0]} to {days[-1]}.\n"
        "Single runs; take your own. At which commit, beside what load: the\n"
        "[report](benchmarks/REPORT.md).\n"
    )
    lines = [
        under,
        "| what | figure | command |",
        "| --- | --- | --- |",
    ]
    for what, figure, command in ROWS:
        lines.append(f"| {what} | {figure(results)} | `python -m benchmarks.{command}` |")
    return "\n".join([*lines, ""])


TABLE = Inserted(ROOT / "README.md", "figures", table)
