"""Dashboard, alerts and the page on metrics use what exists, and all that exists is documented."""

import json
import re

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from ssasr.protocol.close_codes import EndCause
from ssasr.telemetry.gpu import LABELS, GpuCollector, gpu_collector
from ssasr.telemetry.metrics import Metrics
from tests.docker import compose
from tests.harness.nvml import FakeNvml

MONITORING = compose.DOCKER / "monitoring"
PAGE = (compose.DOCKER.parent / "docs" / "monitoring.md").read_text()
SUFFIXES = {
    "counter": ["_total"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
}


def everything() -> CollectorRegistry:
    """All the metrics that a process can have."""
    metrics = Metrics()
    metrics.registry.register(gpu_collector("english", "GPU-1", FakeNvml()))
    return metrics.registry


def declared() -> dict[str, object]:
    """Families by name, without those of the process collector."""
    return {f.name: f for f in everything().collect() if f.name.startswith("ssasr_")}


def labels(name: str) -> set[str]:
    collector = everything()._names_to_collectors[name]
    if isinstance(collector, GpuCollector):
        return set(LABELS)
    return set(getattr(collector, "_labelnames", ()))


def series() -> dict[str, set[str]]:
    """Every series name with the labels it may have, those of scraping included."""
    found = {"process_resident_memory_bytes": {"instance"}, "up": {"instance", "job"}}
    for name, family in declared().items():
        for suffix in SUFFIXES[family.type]:
            extra = {"le"} if suffix == "_bucket" else set()
            found[name + suffix] = labels(name) | extra | {"instance", "namespace", "service"}
    return found


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, str]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def check(expression: str) -> None:
    """Raises ValueError for what is no PromQL, AssertionError for what does not exist."""
    promql_parser.parse(expression)
    known = series()
    bare = re.sub(r'"[^"]*"', '""', expression)
    used = set(re.findall(r"\b(?:(?:ssasr|process)_\w+|up)\b", bare))
    assert used, "an expression about nothing"
    assert used <= known.keys(), used - known.keys()
    allowed = set.union(*(known[name] for name in used))
    grouped = {
        label.strip() for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(",")
    }
    selectors = " ".join(re.findall(r"\{([^}]*)\}", bare))
    matched = set(re.findall(r"(\w+)[=!]", selectors))
    assert grouped | matched <= allowed


EXPRESSIONS = alerts() | panels()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expressions_use_only_what_exists(expression: str):
    check(expression)


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(ssasr_session_ends)",
        "rate(ssasr_sessions_open[5m])",
        "sum by (model) (ssasr_engine_streams)",
        'ssasr_session_ends_total{reason="x"}',
        "sum((ssasr_sessions)",
    ],
)
def test_wrong_expressions_are_found_out(wrong: str):
    with pytest.raises((ValueError, AssertionError)):
        check(wrong)


def test_alerts_name_causes_that_exist():
    named = re.findall(r'cause=~"([^"]*)"', " ".join(alerts().values()))
    assert {cause for group in named for cause in group.split("|")} <= {c.value for c in EndCause}


def test_every_alert_says_what_to_do():
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in groups[0]["rules"]:
        assert rule["annotations"].keys() == {"summary", "action"}
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = set(re.findall(r"by \(([^)]*)\)", rule["expr"]))
        assert not grouped or all(shown <= set(g.split(", ")) for g in grouped)


def test_the_page_lists_every_metric_as_it_is():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| (\w+) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    families = declared()
    assert {row[0] for row in rows} == families.keys()
    for name, kind, shown, _, meaning in rows:
        assert kind == families[name].type
        assert set(re.findall(r"`(\w+)`", shown)) == labels(name)
        assert meaning.strip() == families[name].documentation


def test_every_metric_is_on_the_dashboard_or_in_an_alert():
    used = " ".join(EXPRESSIONS.values())
    assert [n for n in declared() if n != "ssasr_build_info" and n not in used] == []
