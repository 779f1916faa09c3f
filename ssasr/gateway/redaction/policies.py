"""The policies of ``redact_pii_policies``: the protocol's names, and those that are detected."""

from collections.abc import Sequence

from attrs import frozen

from ssasr.gateway.redaction.lexicon import words

POLICIES = words("policies")
"""Every name that the protocol knows."""

NOT_DETECTED = words("not_detected")
"""Those that need more than rules and a small model of names."""

LANGUAGES: dict[str, frozenset[str]] = {"en": POLICIES - NOT_DETECTED}
"""What is detected, by language (ISO 639-1)."""


@frozen
class Finding:
    """Words ``first`` to ``last`` (inclusive) are of ``policy``; ``score`` from 0 to 1 says how
    sure that is. Several findings may name the same words: whoever asks for either wants them
    hidden."""

    policy: str
    first: int
    last: int
    score: float


THRESHOLD = 0.4
"""Findings of a lower score are not acted on. It leans to hiding."""


def policies_of(findings: Sequence[Finding], asked: frozenset[str], count: int) -> list[str | None]:
    """For each of ``count`` words the likeliest of the policies asked for that it falls under."""
    best: list[tuple[float, str] | None] = [None] * count
    for finding in findings:
        if finding.policy not in asked:
            continue
        entry = (finding.score, finding.policy)
        for index in range(max(finding.first, 0), min(finding.last + 1, count)):
            best[index] = max(best[index] or entry, entry)
    return [None if entry is None else entry[1] for entry in best]
