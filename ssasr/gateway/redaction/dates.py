"""Dates, times, durations, ages and sums of money, said or written."""

import re
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise

from ssasr.gateway.redaction.cues import CUES, LOST_LETTER, context
from ssasr.gateway.redaction.lexicon import words
from ssasr.gateway.redaction.policies import Finding, finding
from ssasr.gateway.redaction.spoken import CUT_ORDINALS, Atom, Kind, cut_words

MONTHS = words("months") | frozenset(
    short for short, month in cut_words(words("months")).items() if len(month) > 6
)
WEEKDAYS = words("weekdays")
MONEY = words("money")
SPANS = re.compile(r"(?:second|minute|hour|day|night|week|month|year|decade)s?")
BEFORE_MONTH = words("before_month")
AMOUNTS = words("amounts")


def _day(atom: Atom) -> bool:
    """Whether it may be a day of a month."""
    if atom.text == "second" or atom.text in CUT_ORDINALS:
        return True
    return atom.kind is Kind.DIGITS and 0 < int(atom.text) <= 31 and len(atom.text) <= 2


def _digits_of(atom: Atom) -> str:
    """The digits of a number, also of one above nine that has lost a letter; "" of others."""
    if atom.kind is Kind.DIGITS:
        return atom.text
    return atom.code if len(atom.code) == 2 and atom.code.isdigit() else ""


def _year(atoms: Sequence[Atom], at: int) -> int:
    """How many atoms from ``at`` on make a year; 0: they make none. "1985", "nineteen eighty five",
    "two thousand six"."""
    texts = [_digits_of(atom) for atom in atoms[at : at + 4]]
    texts += [""] * (4 - len(texts))
    if len(texts[0]) == 4 and texts[0][:2] in {"18", "19", "20"}:
        return 1
    if texts[0] in {"19", "20"} and len(texts[1]) == 2:
        return 2
    if texts[0] in {"19", "20"} and at + 2 < len(atoms) and atoms[at + 1].code == "0":
        return 3 if len(texts[2]) == 1 else 0
    if all(len(text) == 1 for text in texts) and texts[0] in {"1", "2"}:
        return 4
    return 0


def _year_behind(atoms: Sequence[Atom], last: int) -> int:
    """The last atom of a date that ends at ``last``, with the year that may follow."""
    at = last + 1
    while at < len(atoms) and (atoms[at].text in {",", "-", "in", "the", "year", "of"}):
        at += 1
    if at < len(atoms):
        if length := _year(atoms, at):
            return at + length - 1
        short = atoms[at].kind is Kind.DIGITS and len(atoms[at].text) == 2
        if short and at == last + 1:
            return at
    return last


def _month_dates(atoms: Sequence[Atom]) -> Iterator[tuple[int, int]]:
    """Ranges of dates with a month's name, with or without day and year."""
    for at, atom in enumerate(atoms):
        if atom.text not in MONTHS or atom.kind is not Kind.WORD:
            continue
        first = last = at
        before = at - 2 if at and atoms[at - 1].text in {"of", "o", "a", "on"} else at - 1
        if before >= 0 and _day(atoms[before]):
            first = before
        skip = 2 if at + 1 < len(atoms) and atoms[at + 1].text == "the" else 1
        if at + skip < len(atoms) and _day(atoms[at + skip]):
            last = at + skip
        last = _year_behind(atoms, last)
        announced = at > 0 and atoms[at - 1].text in BEFORE_MONTH
        sure = atom.text not in {"may", "march", "mar", "dec", "jan"} or (
            announced and atom.capital
        )
        if first < last or sure:
            yield first, last


def _numeric_dates(atoms: Sequence[Atom]) -> Iterator[tuple[int, int]]:
    """Ranges of dates in three numbers: 12/05/1985, 1985-12-05, 12.05.85, "twelve slash five slash
    eighty five"."""
    for at in range(len(atoms) - 4):
        parts = atoms[at : at + 5]
        kinds = [atom.kind for atom in parts]
        if kinds != [Kind.DIGITS, Kind.SYMBOL, Kind.DIGITS, Kind.SYMBOL, Kind.DIGITS]:
            continue
        if parts[1].text not in {"/", "-", "."} or parts[1].text != parts[3].text:
            continue
        a, b, c = parts[0].text, parts[2].text, parts[4].text
        if len(b) <= 2 and {len(a), len(c)} <= {1, 2, 4} and int(b) <= 31:
            last = at + 4
            if c in {"19", "20"} and at + 5 < len(atoms) and len(atoms[at + 5].text) == 2:
                last += 1
            yield at, last


def _birth_dates(atoms: Sequence[Atom]) -> Iterator[tuple[int, int]]:
    """Ranges of days, months and years, in any order, after "born" or "date of birth"."""
    for at, atom in enumerate(atoms):
        if not re.fullmatch(r"born|birth|birthday|birthdate|dob|birthday's", atom.text):
            continue
        if (found := _date_after(atoms, at, 16, also=("second",))) is not None:
            yield found


def _date_after(
    atoms: Sequence[Atom],
    at: int,
    reach: int,
    *,
    also: Container[str] = (),
    zero: bool = False,
) -> tuple[int, int] | None:
    """The range of the digits, months and ``also`` that begin within ``reach`` atoms after ``at``,
    with what joins them; None: there is none. ``zero``: an "oh" may begin them, also one recognised
    as "a"."""
    first = last = -1
    for index in range(at + 1, min(at + reach, len(atoms))):
        each = atoms[index]
        begins = first < 0 and zero and _begins_as_zero(atoms, index)
        if begins or each.kind is Kind.DIGITS or each.text in MONTHS or each.text in also:
            first = index if first < 0 else first
            last = index
        elif first >= 0 and not _joins_date(each):
            break
        if each.stop and first >= 0:
            break
    if first < 0:
        return None
    return first, last + _ends_misheard(atoms, last)


def _begins_as_zero(atoms: Sequence[Atom], at: int) -> bool:
    """Whether atom ``at`` is an "oh", or was misheard as another letter before a digit."""
    follows = at + 1 < len(atoms) and bool(atoms[at + 1].code) and atoms[at + 1].code.isdigit()
    return atoms[at].text == "oh" or (atoms[at].text in {"o", "a"} and follows)


def _ends_misheard(atoms: Sequence[Atom], last: int) -> bool:
    """Whether the atom after ``last`` is the last digit, misheard: "nineteen fifty sick"."""
    if atoms[last].stop or len(atoms[last].code) != 2 or last + 1 == len(atoms):
        return False
    following = atoms[last + 1]
    return following.kind is Kind.WORD and following.code.isdigit() and len(following.code) == 1


def _joins_date(atom: Atom) -> bool:
    """Whether it may stand between the parts of a date."""
    return atom.text in {"of", "on", "the", ",", "/", "-", ".", "in", "day", "and"} or (
        bool(atom.code) and atom.code.isdigit()
    )


def dates(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of dates, of dates of birth, of intervals, and of the ends of cards."""
    found = [*_month_dates(atoms), *_numeric_dates(atoms)]
    for first, last in found:
        around = context(atoms, first, last)
        yield finding(atoms, "date", first, last, 0.8)
        birth, expiry = around.near("date_of_birth"), around.near("credit_card_expiration")
        if birth:
            yield finding(atoms, "date_of_birth", first, last, 0.5 + 0.4 * birth)
        elif _is_long_ago(atoms, first, last):
            yield finding(atoms, "date_of_birth", first, last, 0.45)
        if expiry and expiry > birth:
            yield finding(atoms, "credit_card_expiration", first, last, 0.4 + 0.5 * expiry)
    for first, last in _birth_dates(atoms):
        yield finding(atoms, "date_of_birth", first, last, 0.9)
        if last > first:
            yield finding(atoms, "date", first, last, 0.6)
    for (first, left), (right, last) in pairwise(found):
        between = [atom.text for atom in atoms[left + 1 : right]]
        if between in (["to"], ["through"], ["until"], ["and"], ["-"], ["till"]):
            yield finding(atoms, "date_interval", first, last, 0.7)
    for at, atom in enumerate(atoms):
        if atom.text in WEEKDAYS:
            yield finding(atoms, "date", at, at, 0.5)
    yield from _expirations(atoms)


def _is_long_ago(atoms: Sequence[Atom], first: int, last: int) -> bool:
    """Whether it is a day with a year before 2010, which people hardly say of anything but a
    birth."""
    digits = [_digits_of(a) or "0" for a in atoms[first : last + 1] if _digits_of(a) or _day(a)]
    year = "".join(digits[1:]) if len(digits) > 1 else ""
    return bool(re.search(r"(?:19\d\d|200\d)$", year))


MONTH_AND_YEAR = re.compile(r"(?:0[1-9]|1[0-2])(?:2[6-9]|3\d)")
"""Of a card's end, which is to come."""
END_OF_CARD = re.compile(r"(?:end|good) date|(?:good|valid) (?:until|till|through|to)|runs? out")


def _expirations(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of the end of a card: "expires oh nine twenty seven", "expiry 09/27"."""
    texts = [LOST_LETTER.get(atom.text, atom.text) for atom in atoms]
    said = " ".join(texts)
    with_card = any(
        CUES[f"credit_card_{part}"].search(said) for part in ("number", "cvv", "expiration")
    )
    for at, text in enumerate(texts):
        if _is_month_and_year(atoms, at):
            yield finding(atoms, "credit_card_expiration", at, at + 2, 0.45)
        elif with_card and MONTH_AND_YEAR.fullmatch(text):
            yield finding(atoms, "credit_card_expiration", at, at, 0.45)
        pair = f"{texts[at - 1]} {text}" if at else ""
        if not (END_OF_CARD.fullmatch(pair) or re.fullmatch(r"expir\w*|exp|valid|thru", text)):
            continue
        found = _date_after(atoms, at, 12, zero=True)
        if found is None:
            continue
        first, last = found
        if sum(len(a.code) for a in atoms[first : last + 1]) <= 8:
            yield finding(atoms, "credit_card_expiration", first, last, 0.8)


def _is_month_and_year(atoms: Sequence[Atom], at: int) -> bool:
    """Whether three atoms from ``at`` on are one word like "09/27", with a year to come."""
    parts = atoms[at : at + 3]
    if len(parts) < 3 or parts[0].first != parts[2].last or parts[1].text != "/":
        return False
    return bool(MONTH_AND_YEAR.fullmatch(parts[0].text + parts[2].text))


def quantities(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of sums of money, times of the day, durations and ages."""
    for at, atom in enumerate(atoms):
        if atom.kind is not Kind.DIGITS:
            continue
        last = at
        while last + 1 < len(atoms) and (
            atoms[last + 1].kind is Kind.DIGITS or atoms[last + 1].text in AMOUNTS
        ):
            last += 1
        while (
            last > at
            and atoms[last].kind is not Kind.DIGITS
            and atoms[last].text in {"and", ",", "."}
        ):
            last -= 1
        yield from _quantity(atoms, at, last)


def _quantity(atoms: Sequence[Atom], first: int, last: int) -> Iterator[Finding]:
    """Findings of the number in atoms ``first`` to ``last``, by what stands around it."""
    before = atoms[first - 1].text if first else ""
    after = [atom.text for atom in atoms[last + 1 : last + 4]] + [""] * 3
    if before in {"$", "£", "€", "¥"}:
        yield finding(atoms, "money_amount", first - 1, last, 0.9)
    if after[0] in MONEY:
        yield finding(atoms, "money_amount", first, last + 1, 0.9)
    if (
        after[0] == "o'clock"
        or after[0] in {"am", "pm"}
        or (after[0], after[1]) in {("a", "m"), ("p", "m")}
    ):
        yield finding(atoms, "time", first, last + (1 if len(after[0]) > 1 else 2), 0.8)
    elif after[0] == ":" and last + 2 < len(atoms) and atoms[last + 2].kind is Kind.DIGITS:
        yield finding(atoms, "time", first, last + 2, 0.6)
    hyphen = 1 if after[0] == "-" else 0
    if SPANS.fullmatch(after[hyphen]):
        age = after[hyphen + 1] in {"old", "-", "of"} and after[hyphen].startswith(
            ("year", "month")
        )
        if age:
            extra = 2 if after[hyphen + 1] in {"old", "of"} else 3
            end = min(last + hyphen + extra, len(atoms) - 1)
            yield finding(atoms, "person_age", first, end, 0.9)
        yield finding(atoms, "duration", first, last + hyphen + 1, 0.6)
    elif _is_age(atoms, first, last):
        yield finding(atoms, "person_age", first, last, 0.6)


def _is_age(atoms: Sequence[Atom], first: int, last: int) -> bool:
    """Whether the number is somebody's age: "my age is 42", "she just turned 42", "I'm 42." """
    if first != last or not 1 <= int(atoms[first].text) <= 119 or atoms[first].ordinal:
        return False
    before = [atom.text for atom in atoms[max(first - 3, 0) : first]]
    if before and before[-1] in {"aged", "turned", "turning", "age"}:
        return True
    if len(before) > 1 and before[-2] == "age" and before[-1] in {"is", "of", "was"}:
        return True
    ends = atoms[last].stop or last + 1 == len(atoms) or atoms[last + 1].text in {"and", "now"}
    said = before[-1:] in (["i'm"], ["she's"], ["he's"]) or before[-2:] == ["i", "am"]
    return said and ends
