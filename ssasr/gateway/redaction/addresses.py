"""E-mail addresses, network addresses, URLs and street addresses, said or written."""

import re
from collections.abc import Iterator, Sequence

from ssasr.gateway.redaction.lexicon import words
from ssasr.gateway.redaction.policies import Finding, finding
from ssasr.gateway.redaction.spoken import Atom, Kind

ENDINGS = words("endings")
DOMAINS = ENDINGS - {"me", "us", "co", "int", "tv", "app"}
PROVIDERS = words("providers")
MARKS = (ENDINGS | PROVIDERS) - {"me", "us"}
BREAKS = words("breaks")
FILLERS = words("fillers")
"""What does not belong to the part before the "at"."""
MISHEARD_AT = frozenset({"it", "add", "that", "and", "an", "a", "hat", "had", "app"})
LOCAL_PART = 24
"""Most atoms before the "at"; they may be letters, spelled."""


def _said(atoms: Sequence[Atom], at: int, *texts: str) -> bool:
    """Whether atom ``at`` is there and one of these texts."""
    return 0 <= at < len(atoms) and atoms[at].text in texts


def _domain_end(atoms: Sequence[Atom], start: int) -> int:
    """The last atom of a domain whose first label is at ``start``; -1 if it is none."""
    end = -1
    for at in range(start, min(start + 14, len(atoms) - 1)):
        if atoms[at].stop and at > start and end < 0 and atoms[at].text != ".":
            return -1
        if atoms[at].text == "." and atoms[at + 1].kind is not Kind.SYMBOL:
            if (
                atoms[at + 1].text in ENDINGS
                or _said(atoms, at + 2, ".")
                or (end < 0 and at + 1 < len(atoms))
            ):
                end = at + 1
        elif end >= 0 and at > end:
            break
    return end


def _local_start(atoms: Sequence[Atom], at: int) -> int:
    """The first atom of the local part before the "at" at ``at``."""
    first = at
    words = 0
    while first > 0 and at - first < LOCAL_PART:
        atom = atoms[first - 1]
        if atom.stop and atom.kind is not Kind.SYMBOL and first < at:
            break  # one right before the "at" may only be a pause
        if atom.kind is Kind.WORD:
            joined = first < at and _said(atoms, first, ".", "_", "-")
            if atom.text in BREAKS and not joined:
                break
            words += not joined
            if words > 3:
                break
        elif atom.kind is Kind.SYMBOL and atom.text not in {".", "_", "-", "+"}:
            break
        first -= 1
    return first


def email_addresses(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of addresses that are written, or said with "at" and "dot"; after "e-mail" also
    where either is missing."""
    for at, atom in enumerate(atoms):
        if atom.text not in {"@", "at"} or at == 0 or at + 1 == len(atoms):
            continue
        end = _domain_end(atoms, at + 1)
        provider = next((i for i in range(at + 1, min(at + 3, len(atoms)))
                         if atoms[i].text in PROVIDERS), -1)  # fmt: skip
        if end < 0 and provider >= 0:
            end = _provider_end(atoms, provider)
        first = _local_start(atoms, at)
        if end >= 0 and first < at:
            yield finding(atoms, "email_address", first, end, 0.9)
    yield from _provided_addresses(atoms)
    yield from _announced_addresses(atoms)


def _provider_end(atoms: Sequence[Atom], provider: int) -> int:
    """The last atom of "gmail dot com", also where the dot was recognised as another word."""
    end = provider
    if provider + 2 < len(atoms) and atoms[provider + 2].text in ENDINGS - {"me", "us"}:
        end += 2
    while _said(atoms, end + 1, ".", *ENDINGS):
        end += 1
    return end


def _provided_addresses(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings where the "at" before a provider is missing, or was recognised as another word: "ann
    lee it gmail dot com"."""
    for provider in range(2, len(atoms)):
        if atoms[provider].text not in PROVIDERS or _said(atoms, provider - 1, "at", "@", "."):
            continue
        end = _provider_end(atoms, provider)
        before = provider - 1 if atoms[provider - 1].text in MISHEARD_AT else provider
        first = _local_start(atoms, before)
        if end > provider and first < before:
            yield finding(atoms, "email_address", first, end, 0.7)


def _announced_addresses(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings after "e-mail": all up to the last atom that only an address has."""
    for cue, atom in enumerate(atoms):
        if not re.fullmatch(r"e?mails?|gmail", atom.text) or _said(atoms, cue + 1, "."):
            continue
        first = cue + 1
        while first < len(atoms) and atoms[first].text in BREAKS - {"at", "me"}:
            first += 1
        last = -1
        marks = 0
        for at in range(first, min(first + 30, len(atoms))):
            each = atoms[at]
            if each.text in {"@", "at", "."} or each.text in MARKS:
                marks += 1
                last = min(at + 1, len(atoms) - 1) if each.text in {"@", "."} else at
            if each.stop and each.kind is not Kind.SYMBOL:
                break
        goes_on = marks == 1 and last == len(atoms) - 1 and _said(atoms, first + 1, ".")
        if (marks >= 2 and last >= first) or goes_on:
            yield finding(atoms, "email_address", first, last, 0.6)


def network_addresses(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of URLs and IPv4 addresses."""
    for at, atom in enumerate(atoms):
        label = atom.kind is not Kind.SYMBOL and _said(atoms, at + 1, ".") and at + 2 < len(atoms)
        if label and (atoms[at + 2].text in DOMAINS or atom.text in {"www", "w"}):
            yield finding(atoms, "url", *_url(atoms, at), 0.7)
        if atom.kind is Kind.DIGITS and (end := _ip_end(atoms, at)) > 0:
            yield finding(atoms, "ip_address", at, end, 0.8)


def _url(atoms: Sequence[Atom], at: int) -> tuple[int, int]:
    """The range of the URL whose dot follows atom ``at``."""
    first, last = at, at + 2
    while first > 1 and _said(atoms, first - 1, ".", "/", "-", ":"):
        first -= 2 if atoms[first - 2].kind is not Kind.SYMBOL else 1
    while first > 0 and atoms[first - 1].kind is Kind.LETTER and atoms[first].kind is Kind.LETTER:
        first -= 1
    while last + 2 < len(atoms) and _said(atoms, last + 1, ".", "/", "-"):
        last += 2
    return max(first, 0), last


IP_CUES = frozenset(["ip", "ips", "server", "server's", "host", "ping", "firewall", "subnet"])


def _ip_end(atoms: Sequence[Atom], at: int) -> int:
    """The last atom of four numbers up to 255 with dots between, each perhaps said digit by digit;
    -1 if there are none. After a cue, dots may be missing or misheard."""
    groups, dots, end = [""], 0, at
    announced = any(atom.text in IP_CUES for atom in atoms[max(at - 8, 0) : at])
    while at < len(atoms):
        atom = atoms[at]
        if atom.code.isdigit():
            groups[-1] += atom.code
            end = at
        elif atom.text == "." and groups[-1]:
            groups.append("")
            dots += 1
        elif announced and dots and atom.kind is Kind.WORD and not atom.stop:
            groups += [] if atom.text in FILLERS else [""]
        else:
            break
        if atom.stop:
            break
        at += 1
    numbers = [group for group in groups if group]
    if announced and dots >= 1 and sum(map(len, numbers)) >= 4:
        return end
    return end if len(numbers) == 4 and all(len(group) <= 4 for group in numbers) else -1


STREETS = words("streets")
PLAIN_STREETS = words("plain_streets")
"""Those that are hardly anything else behind a number."""
STATES = words("states")
UNITS = words("units")
ADDRESS_CUE = re.compile(
    r"address|lives?|living|located|moved|deliver\w*|ship\w*|mail|reside|send|sent|come|go|at|house|grew"
)


HOME = re.compile(r"lives?|living|address|reside|home|house")


def street_addresses(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of a number, a name and a kind of street, with town, state and code if they
    follow."""
    for at, atom in enumerate(atoms):
        if atom.kind is not Kind.DIGITS or atom.ordinal or (at and _same_number(atoms, at)):
            continue
        last = at
        while last + 1 < len(atoms) and _of_number(atoms[last + 1]):
            last += 1
        while at > 0 and atoms[at - 1].text in {"oh", "o"}:
            at -= 1
        cue = any(ADDRESS_CUE.fullmatch(a.text) for a in atoms[max(at - 8, 0) : at])
        street = _street(atoms, last + 1)
        if street < 0 and cue:
            street = _any_street(atoms, last + 1)
        if street >= 0:
            score = 0.8 if cue or atoms[street].text in PLAIN_STREETS else 0.5
            yield finding(atoms, "location", at, _place_behind(atoms, street), score)
            continue
        home = any(HOME.fullmatch(a.text) for a in atoms[max(at - 4, 0) : at])
        if home and (street := _small_street(atoms, last + 1)) > 0:
            yield finding(atoms, "location", at, _end_of_address(atoms, street), 0.6)


def _small_street(atoms: Sequence[Atom], start: int) -> int:
    """As ``_street``, of a name that was recognised as small words ("ever green terrace"); 0 if
    nowhere."""
    for at in range(start, min(start + 5, len(atoms))):
        if at > start and atoms[at].text in PLAIN_STREETS:
            return at
        if atoms[at].kind is not Kind.WORD or atoms[at].stop:
            break
    return 0


def _end_of_address(atoms: Sequence[Atom], street: int) -> int:
    """The last atom of the sentence, if it is near: a town's name may be recognised as small
    words."""
    for at in range(street, min(street + 4, len(atoms))):
        if atoms[at].stop or at + 1 == len(atoms):
            return at
    return _place_behind(atoms, street)


def _of_number(atom: Atom) -> bool:
    """Whether it may be part of a house number."""
    return (atom.kind is Kind.DIGITS and not atom.ordinal) or atom.text in {"oh", "o"}


def _same_number(atoms: Sequence[Atom], at: int) -> bool:
    """Whether the digits at ``at`` continue those before."""
    while at > 1 and atoms[at - 1].text in {"oh", "o"}:
        at -= 1
    return at > 0 and atoms[at - 1].kind is Kind.DIGITS and not atoms[at - 1].ordinal


def _street(atoms: Sequence[Atom], start: int) -> int:
    """The atom of the kind of street, one to four atoms after ``start``; -1 if there is none."""
    for at in range(start, min(start + 5, len(atoms))):
        atom = atoms[at]
        if atom.kind is Kind.SYMBOL:
            return -1
        named = at > start or atom.capital
        if at > start and atom.text in STREETS and (atom.capital or atom.text in PLAIN_STREETS):
            following = at + 1 < len(atoms) and not atom.stop and atoms[at + 1]
            if not (following and following.text in STREETS and following.capital):
                return at
        if not named or atom.stop:
            return -1
        if not (
            atom.capital
            or atom.ordinal
            or atom.text in {"of", "the", "north", "south", "east", "west"}
        ):
            return -1
    return -1


def _any_street(atoms: Sequence[Atom], start: int) -> int:
    """The second of two words with capitals, of a street whose kind is not in the list; -1."""
    named = [atom.capital and atom.kind is Kind.WORD for atom in atoms[start : start + 2]]
    return start + 1 if named == [True, True] and not atoms[start].stop else -1


def _place_behind(atoms: Sequence[Atom], street: int) -> int:
    """The last atom of the address whose street ends at ``street``."""
    last = street
    for at in range(street + 1, min(street + 16, len(atoms))):
        atom = atoms[at]
        if (
            atom.kind is Kind.DIGITS
            or atom.text in STATES
            or (atom.kind is Kind.LETTER and _of_unit(atoms[at - 1]))
            or (atom.kind is Kind.WORD and atom.capital and not atoms[at - 1].stop)
        ):
            last = at
        elif not (atom.text in UNITS or atom.text in {"in", ",", "-", "oh", "o"}):
            break
        if atom.stop:
            break
    return last


def _of_unit(before: Atom) -> bool:
    """Whether a letter after it names a flat."""
    return before.text in UNITS or before.kind is Kind.DIGITS
