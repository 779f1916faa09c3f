"""The metrics of several processes as those of one: plain data to send, and its sum."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

ONE_FOR_ALL = frozenset(
    {
        "ssasr_build_info",
        "ssasr_sessions_limit",
        "ssasr_ready",
        "ssasr_draining",
        "ssasr_engines_answering",
        "ssasr_licence_expires_timestamp_seconds",
        "ssasr_usage_pending_seconds",
        "process_max_fds",
    }
)
"""Every process says the same of the whole, or the highest counts; all else are amounts, which add
up."""
EARLIEST = "process_start_time_seconds"

Family = Mapping[str, Any]


def to_plain(registry: CollectorRegistry) -> list[Family]:
    """Every metric as JSON types."""
    return [
        {
            "name": metric.name,
            "help": metric.documentation,
            "type": metric.type,
            "samples": [[each.name, each.labels, each.value] for each in metric.samples],
        }
        for metric in registry.collect()
    ]


def exposition_of_sum(processes: Sequence[Iterable[Family]]) -> bytes:
    """Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Sum(processes))
    return generate_latest(registry)


class _Sum:
    def __init__(self, processes: Sequence[Iterable[Family]]) -> None:
        self._processes = processes

    def collect(self) -> list[Metric]:
        found: dict[str, Metric] = {}
        values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for families in self._processes:
            for family in families:
                name = family["name"]
                if name not in found:
                    found[name] = Metric(name, family["help"], family["type"])
                for sample, labels, value in family["samples"]:
                    key = (name, sample, tuple(sorted(labels.items())))
                    before = values.get(key)
                    values[key] = value if before is None else _both(sample, before, value)
        for (name, sample, labels), value in values.items():
            found[name].add_sample(sample, dict(labels), value)
        return list(found.values())


def _both(sample: str, one: float, other: float) -> float:
    if sample in ONE_FOR_ALL:
        return max(one, other)
    if sample == EARLIEST or sample.endswith("_created"):
        return min(one, other)
    return one + other
