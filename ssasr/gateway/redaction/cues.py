"""Words around a number that say what it is (cues). The nearest one before it counts most."""

import re
from collections.abc import Sequence

from attrs import frozen

from ssasr.gateway.redaction.lexicon import pattern
from ssasr.gateway.redaction.spoken import Atom, Kind, cut_words

REACH = 14
"""Atoms before a number in which a cue is looked for."""
BEHIND = 8
"""Atoms after it: "… is my card number"."""


ANNOUNCED = (
    "credit_card_cvv", "credit_card_expiration", "credit_card_number", "us_social_security_number",
    "banking_information", "account_number", "phone_number", "date_of_birth", "drivers_license",
    "passport_number", "healthcare_number", "vehicle_id", "person_age", "username", "password",
)  # fmt: skip
CUES = {name: pattern(f"cue {name}", within=True) for name in ANNOUNCED}
LOST_LETTER = cut_words(
    word for cue in CUES.values() for word in re.findall(r"[a-z]{4,}", cue.pattern)
)
NOT_OURS = pattern("cue nobody", within=True)
"""What a number is of that is nobody's: for short numbers without a shape of their own."""


@frozen
class Context:
    """``before`` and ``after``: policies with a cue there, with how near (1 next to it, 0 far)."""

    before: dict[str, float]
    after: dict[str, float]
    neutral: float
    """Likewise of cues that make it nobody's."""

    def near(self, policy: str) -> float:
        return max(self.before.get(policy, 0.0), 0.8 * self.after.get(policy, 0.0))

    def best(self) -> str | None:
        """The policy whose cue comes nearest before."""
        return max(self.before, key=self.before.__getitem__) if self.before else None


def is_cue(word: str) -> bool:
    """Whether a word alone is a cue of any policy."""
    return any(cue.fullmatch(word) for cue in CUES.values())


def text_of(atoms: Sequence[Atom]) -> str:
    """The words of some atoms as one text. Letters in a row are joined ("c v v" is "cvv"), and a
    cue that has lost one letter, the most frequent small error of a recogniser, is completed."""
    parts: list[str] = []
    letters = False
    for atom in atoms:
        if atom.kind is Kind.SYMBOL:
            continue
        letter = atom.kind is Kind.LETTER
        if letter and letters:
            parts[-1] += atom.text
        else:
            parts.append(LOST_LETTER.get(atom.text, atom.text))
        letters = letter
    return " ".join(parts)


def _nearness(pattern: re.Pattern[str], text: str, *, from_end: bool) -> float:
    """How near the best match is: 1 next to the number, 0 beyond ``REACH`` words. ``from_end``: the
    text stands before the number."""
    best = 0.0
    for match in pattern.finditer(text):
        distance = text[match.end() :].count(" ") if from_end else text[: match.start()].count(" ")
        best = max(best, 1 - distance / (REACH + 2))
    return best


def context(atoms: Sequence[Atom], first: int, last: int) -> Context:
    """The cues around atoms ``first`` to ``last``."""
    before = text_of(atoms[max(first - REACH, 0) : first])
    after = text_of(_until_stop(atoms, last))
    found_before = {p: n for p, cue in CUES.items() if (n := _nearness(cue, before, from_end=True))}
    found_after = {p: n for p, cue in CUES.items() if (n := _nearness(cue, after, from_end=False))}
    neutral = max(
        _nearness(NOT_OURS, before, from_end=True), _nearness(NOT_OURS, after, from_end=False)
    )
    return Context(found_before, found_after, neutral)


def _until_stop(atoms: Sequence[Atom], last: int) -> Sequence[Atom]:
    """The atoms after ``last``, to the end of its sentence, ``BEHIND`` at most."""
    if atoms[last].stop:
        return ()
    for index in range(last + 1, min(last + 1 + BEHIND, len(atoms))):
        if atoms[index].stop:
            return atoms[last + 1 : index + 1]
    return atoms[last + 1 : last + 1 + BEHIND]
