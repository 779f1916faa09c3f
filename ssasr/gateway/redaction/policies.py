"""The policies of ``redact_pii_policies``: the protocol's names, and those that are detected."""

from collections.abc import Sequence

from attrs import frozen

from ssasr.gateway.redaction.lexicon import words
from ssasr.gateway.redaction.spoken import Atom

POLICIES = words("policies")
"""Every name that the protocol knows."""

NOT_DETECTED = words("not_detected")
"""Those that need more than rules and a small model of names."""

LANGUAGES: dict[str, frozenset[str]] = {"en": POLICIES - NOT_DETECTED}
"""What is detected, by language (ISO 639-1)."""


LENGTHS = {
    "credit_card_number": (11, 19),
    "us_social_security_number": (7, 10),
    "phone_number": (6, 15),
    "account_number": (5, 20),
    "banking_information": (5, 20),
    "passport_number": (6, 10),
    "drivers_license": (5, 14),
    "healthcare_number": (6, 13),
    "credit_card_cvv": (2, 5),
    "password": (3, 12),
    "username": (3, 12),
    "vehicle_id": (4, 18),
}
"""Characters that something announced by a cue may have, a misheard one more or less included."""
NUMBERS = frozenset(LENGTHS) | {"number_sequence"}
"""Numbers and codes; none of them is a model's to find, so looking for them is quick."""


@frozen
class Finding:
    """Words ``first`` to ``last`` (inclusive) are of ``policy``; ``score`` from 0 to 1 says how
    sure that is. Several findings may name the same words: whoever asks for either wants them
    hidden."""

    policy: str
    first: int
    last: int
    score: float


def finding(atoms: Sequence[Atom], policy: str, first: int, last: int, score: float) -> Finding:
    """Atoms ``first`` to ``last`` (inclusive; to the end, if there are fewer) as words."""
    last = min(last, len(atoms) - 1)
    return Finding(policy, atoms[first].first, atoms[last].last, score)


THRESHOLD = 0.4
"""Findings of a lower score are not acted on. It leans to hiding."""


def policies_of(findings: Sequence[Finding], asked: frozenset[str], count: int) -> list[str | None]:
    """For each of ``count`` words the likeliest of the policies asked for that it falls under."""
    best: list[tuple[float, str] | None] = [None] * count
    for each in findings:
        if each.policy not in asked:
            continue
        entry = (each.score, each.policy)
        for index in range(max(each.first, 0), min(each.last + 1, count)):
            best[index] = max(best[index] or entry, entry)
    return [None if entry is None else entry[1] for entry in best]
