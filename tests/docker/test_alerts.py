"""Every alert fires on a series that calls for it and stays silent on one that does not, by
Prometheus' own rule tester."""

import subprocess

import pytest
import yaml

from tests.docker import compose
from tests.docker.test_monitoring import alerts

RULES = compose.DOCKER / "monitoring" / "alerts.yaml"
MINUTES = 10
STEPS = MINUTES * 4
ENDS = 'ssasr_session_ends_total{cause="%s",code="%d",limit="%s",instance="a"}'
EVENT = f"0x{STEPS - 4} 12x3"
"""Nothing for a long time, then twelve at once."""
STILL = f"0x{STEPS}"


def buckets(name: str, fast: str, slow: str) -> dict[str, str]:
    """Two buckets of a histogram: what is fast, and all."""
    series = {f'{name}_bucket{{le="{le}",instance="a"}}': fast for le in ("0.05", "0.1", "1.0")}
    return series | {f'{name}_bucket{{le="{le}",instance="a"}}': slow for le in ("10.0", "+Inf")}


# For each alert: series that fire it, and series that do not.
CASES = {
    "SsasrProcessGone": (
        {'up{job="ssasr-engine",instance="a"}': f"1x{STEPS - 6} 0x6"},
        {'up{job="ssasr-engine",instance="a"}': f"1x{STEPS - 6} 0x2 1x4",
         'up{job="other",instance="a"}': f"0x{STEPS}"},
    ),
    "SsasrNoGateway": (
        {'ssasr_sessions{instance="a"}': f"3x{STEPS - 30} _x30"},
        {'ssasr_sessions{instance="a"}': STILL},
    ),
    "SsasrNoEngine": (
        {'ssasr_engine_capacity{instance="a"}': f"3x{STEPS - 30} _x30"},
        {'ssasr_engine_capacity{instance="a"}': f"3x{STEPS}"},
    ),
    "SsasrModelUnavailable": (
        {'ssasr_engines_answering{version="en-default",instance="a"}': f"1x{STEPS - 5} 0x5",
         'ssasr_engines_answering{version="en-default",instance="b"}': f"1x{STEPS - 5} 0x5"},
        {'ssasr_engines_answering{version="en-default",instance="a"}': f"1x{STEPS - 5} 0x5",
         'ssasr_engines_answering{version="en-default",instance="b"}': f"1x{STEPS}",
         'ssasr_engines_answering{version="ml-default",instance="a"}': STILL},
    ),
    "SsasrEngineBehind": (
        {'ssasr_engine_queue_age_seconds{engine="e",instance="a"}': f"0x{STEPS - 8} 3x8"},
        {'ssasr_engine_queue_age_seconds{engine="e",instance="a"}': f"0x{STEPS - 8} 3x2 0x6"},
    ),
    "SsasrGpuMemoryErrors": (
        {'ssasr_gpu_memory_errors_total{engine="e",gpu="g",instance="a"}': EVENT},
        {'ssasr_gpu_memory_errors_total{engine="e",gpu="g",instance="a"}': f"12x{STEPS}"},
    ),
    "SsasrEngineNearlyFull": (
        {'ssasr_engine_streams{engine="e",instance="a"}': f"19x{STEPS}",
         'ssasr_engine_capacity{engine="e",instance="a"}': f"20x{STEPS}"},
        {'ssasr_engine_streams{engine="e",instance="a"}': f"17x{STEPS}",
         'ssasr_engine_capacity{engine="e",instance="a"}': f"20x{STEPS}"},
    ),
    "SsasrClientsRefused": (
        {ENDS % ("too_many_sessions", 3009, "key"): EVENT},
        {ENDS % ("too_many_sessions", 3009, "key"): STILL,
         ENDS % ("terminated", 1000, ""): EVENT},
    ),
    "SsasrSessionsLost": (
        {ENDS % ("engine_lost", 3005, ""): EVENT},
        {ENDS % ("engine_lost", 3005, ""): f"12x{STEPS}",
         ENDS % ("client_vanished", 1000, ""): EVENT},
    ),
    "SsasrSessionsCut": (
        {ENDS % ("drained", 1001, ""): EVENT},
        {ENDS % ("drained", 1001, ""): STILL},
    ),
    "SsasrFailovers": (
        {'ssasr_failovers_total{reason="lost",instance="a"}': EVENT},
        {'ssasr_failovers_total{reason="draining",instance="a"}': EVENT,
         'ssasr_failovers_total{reason="lost",instance="a"}': STILL},
    ),
    "SsasrWordsLate": (
        buckets("ssasr_word_lag_seconds", f"0+9x{STEPS}", f"0+10x{STEPS}"),
        buckets("ssasr_word_lag_seconds", f"0+99x{STEPS}", f"0+100x{STEPS}"),
    ),
    "SsasrFinalizationSlow": (
        buckets("ssasr_finalization_seconds", f"0+9x{STEPS}", f"0+10x{STEPS}"),
        buckets("ssasr_finalization_seconds", f"0+99x{STEPS}", f"0+100x{STEPS}"),
    ),
    "SsasrGatewayBusy": (
        buckets("ssasr_loop_lag_seconds", f"0+8x{STEPS}", f"0+10x{STEPS}"),
        buckets("ssasr_loop_lag_seconds", f"0+10x{STEPS}", f"0+10x{STEPS}"),
    ),
    "SsasrGatewayNearlyFull": (
        {'ssasr_sessions{instance="a"}': f"95x{STEPS}",
         'ssasr_sessions_limit{instance="a"}': f"100x{STEPS}"},
        {'ssasr_sessions{instance="a"}': f"85x{STEPS}",
         'ssasr_sessions_limit{instance="a"}': f"100x{STEPS}"},
    ),
    "SsasrUsageNotWritten": (
        {'ssasr_usage_pending_seconds{instance="a"}': f"0x{STEPS - 3} 6+15x2"},
        {'ssasr_usage_pending_seconds{instance="a"}': f"0.4x{STEPS}"},
    ),
    "SsasrUsageLost": (
        {'ssasr_usage_lost_total{instance="a"}': EVENT},
        {'ssasr_usage_lost_total{instance="a"}': STILL},
    ),
    "SsasrWebhooksGivenUp": (
        {'ssasr_webhooks_total{instance="a",result="given_up"}': EVENT},
        {'ssasr_webhooks_total{instance="a",result="given_up"}': STILL,
         'ssasr_webhooks_total{instance="a",result="lost"}': STILL,
         'ssasr_webhooks_total{instance="a",result="sent"}': EVENT},
    ),
    "SsasrLicenceEnds": (
        {'ssasr_licence_expires_timestamp_seconds{instance="a"}': f"86400x{STEPS}"},
        {'ssasr_licence_expires_timestamp_seconds{instance="a"}': f"0x{STEPS}"},
    ),
}  # fmt: skip


def test_every_alert_has_a_case():
    assert CASES.keys() == alerts().keys()


def rule_test(alert: str, series: dict[str, str], *, fires: bool) -> dict:
    expected = [{"labels": "{}", "value": 1}] if fires else []
    firing = f'count(count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}}))'
    return {
        "name": f"{alert} {'fires' if fires else 'does not'}",
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{MINUTES}m", "exp_samples": expected}],
    }


@pytest.mark.slow
def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path):
    tests = []
    for alert, (bad, good) in CASES.items():
        tests.append(rule_test(alert, bad, fires=True))
        tests.append(rule_test(alert, good, fires=False))
    content = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump(content))
    command = ["promtool", "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
