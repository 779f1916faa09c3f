"""Numbers and codes of a person: cards, accounts, telephones, documents.

A run is a stretch of digits (or digits and letters) with nothing between but what people say
between digits. Its shape, its check digits and the cues around it give scores, 0 to 1, to the
policies that it may fall under. All that reach the threshold are found: a wrong policy hides as
well as the right one, and recognition errors break check digits."""

import re
from collections.abc import Iterable, Iterator, Sequence

import phonenumbers
from attrs import frozen

from ssasr.gateway.redaction.cues import Context, context, is_cue
from ssasr.gateway.redaction.lexicon import words
from ssasr.gateway.redaction.policies import LENGTHS, Finding
from ssasr.gateway.redaction.spoken import Atom, Kind

FILLERS = words("fillers")
"""Said between two digits of one number."""
SEPARATORS = frozenset("-. /()+,#_")
OPENERS = frozenset(
    ["is", "was", "it's", "that's", "number", "are", "be", "at", "on", "as", "of", "says", "use",
     "pay", ":", ","]
)  # fmt: skip
"""What may stand before the first digit of a number."""
CLOSERS = frozenset(
    ["that's", "it's", "ask", "and", "or", "but", "please", "thanks", "thank", "so", "if", "okay"]
)
"""What may stand behind the last."""
COMMON_WORDS = frozenset(["to", "too", "for", "free", "mine", "won", "level", "time", "tree"])
"""Misheard digits that are as likely words."""
NEVER_DIGITS = words("never digits")
"""Never a misheard digit in the midst of a number."""


@frozen
class Run:
    """Atoms ``first`` to ``last`` and what they spell. ``parts``: how many atoms gave code."""

    first: int
    last: int
    code: str
    parts: int
    pronounced: int
    """How many of them were numbers said as words, or single digits."""

    @property
    def digits(self) -> str:
        return "".join(character for character in self.code if character.isdigit())


def _is_digits(atom: Atom) -> bool:
    """Whether it is a number in digits or words, and no ordinal."""
    return atom.kind is Kind.DIGITS and not atom.ordinal


def _counts(atom: Atom, *, letters: bool) -> bool:
    """Whether it is part of a run by itself. ``letters``: letters are."""
    return _is_digits(atom) or (letters and atom.kind is Kind.LETTER)


def _may_count(atom: Atom, *, letters: bool) -> bool:
    """Whether it may be part of a run between others: a misheard digit, for example."""
    return bool(atom.code) and (letters or atom.code.isdigit())


def _bridge(atoms: Sequence[Atom], at: int, size: int, *, letters: bool) -> int:
    """How many atoms from ``at`` on lie between two parts of a run that has ``size`` characters so
    far; 0 if the run ends here."""
    length = 0
    others = 0
    while at + length < len(atoms) and length < 4:
        atom = atoms[at + length]
        if _counts(atom, letters=letters):
            return length
        passes = (
            (atom.kind is Kind.SYMBOL and atom.text in SEPARATORS)
            or atom.text in FILLERS
            or _may_count(atom, letters=letters)
            or (atom.text == "a" and atoms[at - 1].pronounced and size > 1)  # "oh"
            or (atom.text == "in" and _all_pronounced(atoms, at - 2, at + length))  # "nine"
        )
        if not passes:
            others += 1
            known = atom.text in NEVER_DIGITS or atom.stop or atom.kind is Kind.SYMBOL
            known = known or is_cue(atom.text)
            if others > 1 or known or size < 3:
                return 0
            following = atoms[at + length + 1 : at + length + 3]
            if len(following) < 2 or not all(_counts(each, letters=letters) for each in following):
                return 0
        length += 1
    return 0


def _all_pronounced(atoms: Sequence[Atom], first: int, middle: int) -> bool:
    """Whether the atoms from ``first`` to ``middle`` and the two after it are spoken digits."""
    around = [*atoms[max(first, 0) : middle], *atoms[middle + 1 : middle + 3]]
    return len(around) > 3 and all(atom.pronounced for atom in around)


def runs(atoms: Sequence[Atom], *, letters: bool = False) -> Iterator[Run]:
    """All runs, in order. ``letters``: letters count as digits do."""
    at = 0
    while at < len(atoms):
        if not _counts(atoms[at], letters=letters):
            at += 1
            continue
        first = start = at
        code, parts, pronounced = "", 0, 0
        while True:
            code += atoms[at].code
            parts += 1
            pronounced += atoms[at].pronounced or atoms[at].kind is Kind.LETTER
            skip = 0
            if at + 1 < len(atoms) and not _counts(atoms[at + 1], letters=letters):
                skip = _bridge(atoms, at + 1, len(code), letters=letters)
                if skip == 0:
                    break
            elif at + 1 >= len(atoms):
                break
            code += "".join(
                atom.code
                for atom in atoms[at + 1 : at + 1 + skip]
                if _may_count(atom, letters=letters)
            )
            at += 1 + skip
        first, last = _widened(atoms, first, at, letters=letters)
        before = "".join(atom.code for atom in atoms[first:start])
        after = "".join(atom.code for atom in atoms[at + 1 : last + 1])
        yield Run(first, last, before + code + after, parts, pronounced)
        at += 1


def _widened(atoms: Sequence[Atom], first: int, last: int, *, letters: bool) -> tuple[int, int]:
    """The run with what is a digit only by its sound at its ends ("oh two …")."""
    while first > 0 and atoms[first - 1].text in {"oh", "o", "plus"}:
        first -= 1
    if last - first >= 2:
        first = _widened_left(atoms, first)
    while last + 1 < len(atoms) and not atoms[last].stop and _ends_as_digit(atoms, last + 1):
        last += 1
    while letters and _ends_as_letter(atoms, last + 1):
        last += 1
    if letters and first > 0 and atoms[first - 1].capital and atoms[first - 1].text in {"a", "i"}:
        first -= 1
    if first > 0 and atoms[first - 1].text in {"+", "#"}:
        first -= 1
    return first, last


def _widened_left(atoms: Sequence[Atom], first: int) -> int:
    """The start of a run that up to two misheard digits precede, where something else precedes
    them."""
    for start in (first - 1, first - 2):
        if start < 0 or atoms[start].stop or not atoms[start].code.isdigit():
            break
        before = atoms[start - 1] if start else None
        opens = before is None or before.stop or before.text in OPENERS or is_cue(before.text)
        opens = opens or (before is not None and before.kind is Kind.LETTER)
        if opens or atoms[start].text not in COMMON_WORDS:
            first = start
    return first


def _ends_as_letter(atoms: Sequence[Atom], at: int) -> bool:
    """Whether atom ``at`` is an A or an I that ends a code, and not a word that goes on."""
    if at >= len(atoms) or atoms[at - 1].stop or atoms[at].text not in {"a", "i"}:
        return False
    return atoms[at].stop or at + 1 == len(atoms) or atoms[at + 1].kind is not Kind.WORD


def _ends_as_digit(atoms: Sequence[Atom], at: int) -> bool:
    """Whether atom ``at`` is a misheard digit that ends a run."""
    if atoms[at].text in {"oh", "o"}:
        return True
    ends = atoms[at].stop or at + 1 == len(atoms) or atoms[at + 1].text in CLOSERS
    return atoms[at].code.isdigit() and (ends or atoms[at].text not in COMMON_WORDS)


# -- check digits ----------------------------------------------------------------------------------


def luhn(digits: str) -> bool:
    """Whether the check digit of a payment card is right (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


def iban(code: str) -> bool:
    """Whether the check digits of an international bank account number are right (ISO 13616)."""
    if not (15 <= len(code) <= 34 and code[:2].isalpha() and code[2:4].isdigit()):
        return False
    moved = code[4:] + code[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def routing_number(digits: str) -> bool:
    """Whether the check digit of an American routing number is right (ABA)."""
    weights = (3, 7, 1) * 3
    return (
        len(digits) == 9 and sum(w * int(d) for w, d in zip(weights, digits, strict=True)) % 10 == 0
    )


def social_security_number(digits: str) -> bool:
    """Whether an American number has a shape that is issued: no area 000, 666 or 9xx, no group 00,
    no serial 0000 (Social Security Administration, POMS RM 10201.035)."""
    if len(digits) != 9 or digits[0] == "9":
        return False
    return digits[:3] not in {"000", "666"} and digits[3:5] != "00" and digits[5:] != "0000"


def telephone(digits: str) -> bool:
    """Whether the digits can be dialled, in North America or with a country's code before them
    (libphonenumber)."""
    for text, region in ((digits, "US"), (f"+{digits}", None)):
        try:
            if phonenumbers.is_possible_number(phonenumbers.parse(text, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


# -- readings --------------------------------------------------------------------------------------

GUESSED = {
    "credit_card_number": (12, 20),
    "us_social_security_number": (8, 11),
    "phone_number": (8, 12),
    "account_number": (7, 20),
}
"""Digits that a number may have which nobody has announced as anything, one or two that were lost
included: in a session that asks for one of these alone, it may be that one."""
PAUSED = 0.85
"""How near the cue of a number is of which only the beginning is there."""
SAID_TOGETHER = (
    "credit_card_number", "credit_card_expiration", "credit_card_cvv", "account_number",
    "phone_number",
)  # fmt: skip
DOCUMENT = re.compile(r"[a-z]{1,2}\d{6,9}")
"""The shape of passports' and licences' numbers."""


def _by_shape(digits: str) -> Iterator[tuple[str, float]]:
    """(policy, score) by the length and the check digits alone."""
    size = len(digits)
    if 13 <= size <= 19 and luhn(digits):
        yield "credit_card_number", 0.9
    elif 14 <= size <= 17:
        yield "credit_card_number", 0.6
    if social_security_number(digits):
        yield "us_social_security_number", 0.45
    if size in {10, 11, 12} and telephone(digits):
        yield "phone_number", 0.7
    elif size == 7:
        yield "phone_number", 0.45
    if routing_number(digits):
        yield "banking_information", 0.5
    if 8 <= size <= 20:
        yield "account_number", 0.42
    if size > 20:  # several, said without a pause
        yield from ((policy, 0.5) for policy in SAID_TOGETHER)
    if size >= 6:
        yield "number_sequence", 0.6


def _by_cue(code: str, around: Context, *, goes_on: bool) -> Iterator[tuple[str, float]]:
    """(policy, score) by the cues around a number or a code. ``goes_on``: it may not be complete
    yet."""
    for policy, (least, most) in LENGTHS.items():
        near = around.near(policy)
        if near and (2 if goes_on and near > PAUSED else least) <= len(code) <= most:
            other = max((n for p, n in around.before.items() if p != policy), default=0.0)
            yield policy, 0.45 + 0.5 * near - (0.2 if other > near + 0.3 else 0.0)


def numbers(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings among runs of digits."""
    for run in runs(atoms):
        around = context(atoms, run.first, run.last)
        readings = dict(_by_shape(run.digits))
        goes_on = run.last == len(atoms) - 1
        for policy, score in _by_cue(run.digits, around, goes_on=goes_on):
            readings[policy] = max(readings.get(policy, 0.0), score)
        if not around.before:
            for policy, (least, most) in GUESSED.items():
                if least <= len(run.digits) <= most:
                    readings.setdefault(policy, 0.42)
        if len(run.digits) < 6 and around.neutral > max(around.before.values(), default=0.0):
            readings = {}
        if len(run.digits) < 7 and _is_quantity(atoms, run):
            readings = {}
        elif len(run.digits) >= 4 and run.parts >= 3:
            readings.setdefault("number_sequence", 0.6)
        yield from _findings(atoms, run, readings)


def _is_quantity(atoms: Sequence[Atom], run: Run) -> bool:
    """Whether a unit stands beside the run: a price, a share, a time."""
    before = atoms[run.first - 1].text if run.first else ""
    after = atoms[run.last + 1].text if run.last + 1 < len(atoms) else ""
    return before in {"$", "£", "€"} or after in {
        "dollars", "dollar", "cents", "euros", "pounds", "bucks", "percent", "%", "am", "pm",
        "people", "miles", "years", "minutes", "hours", "days", "weeks", "months", "degrees",
        "times", "feet", "employees", "units", "customers",
    }  # fmt: skip


def codes(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings among runs of digits and letters."""
    for run in runs(atoms, letters=True):
        code = run.code
        if len(code) < 3 or code.isdigit():
            continue
        readings: dict[str, float] = {}
        if iban(code):
            readings |= {"account_number": 0.95, "banking_information": 0.95}
        if 16 <= len(code) <= 18 and not code.isalpha():
            readings["vehicle_id"] = 0.7
        elif 13 <= len(code) <= 24 and sum(map(str.isalpha, code)) > 3 and not code.isalpha():
            readings["vehicle_id"] = 0.45
        if len(run.digits) > 11:
            readings["credit_card_number"] = 0.45  # some of its digits became letters
        if DOCUMENT.fullmatch(code):
            readings |= {"passport_number": 0.45, "drivers_license": 0.45}
        if len(code) >= 5:
            around = context(atoms, run.first, run.last)
            for policy, score in _by_cue(code, around, goes_on=False):
                if policy not in {"phone_number", "us_social_security_number"}:
                    readings[policy] = max(readings.get(policy, 0.0), score)
            if not code.isalpha():
                readings.setdefault("number_sequence", 0.5)
        yield from _findings(atoms, run, readings)


def _findings(atoms: Sequence[Atom], run: Run, readings: dict[str, float]) -> Iterable[Finding]:
    """One finding for each policy with its score."""
    first, last = atoms[run.first].first, atoms[run.last].last
    return [Finding(policy, first, last, score) for policy, score in readings.items()]
