"""Names of people, organisations and places, by a model's entities and by the words before a name;
and classes whose members are a list, such as religions."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from attrs import frozen

from ssasr.gateway.redaction.lexicon import pattern, people, said_before, words
from ssasr.gateway.redaction.policies import POLICIES, Finding, finding
from ssasr.gateway.redaction.spoken import Atom, Kind


@frozen
class Entity:
    """What a model of names found: words ``first`` to ``last`` (inclusive). ``label``: the model's,
    such as PERSON, or one of our policies. ``score``: how sure it is, 0 to 1."""

    label: str
    first: int
    last: int
    score: float = 1.0


class NameModel(Protocol):
    """Words, with their casing and punctuation, to what it finds among them."""

    @property
    def policies(self) -> frozenset[str]:
        """What its labels may mean for us."""

    def __call__(self, words: Sequence[str]) -> list[Entity]: ...


LABELS: dict[str, tuple[tuple[str, float], ...]] = {
    "PERSON": (("person_name", 0.8),),
    "ORG": (("organization", 0.7),),
    "GPE": (("location", 0.7),),
    "LOC": (("location", 0.7),),
    "FAC": (("location", 0.6),),
    "NORP": (("nationality", 0.45),),
    "LANGUAGE": (("language", 0.7),),
    "private_person": (("person_name", 0.8),),
    "private_address": (("location", 0.8),),
    "private_email": (("email_address", 0.8),),
    "private_phone": (("phone_number", 0.8),),
    "private_url": (("url", 0.7),),
    "private_date": (("date", 0.7), ("date_of_birth", 0.6)),
    "account_number": tuple(
        (policy, 0.6)
        for policy in ("account_number", "banking_information", "credit_card_number",
                       "us_social_security_number", "passport_number", "drivers_license")
    ),
    "secret": (("password", 0.7), ("credit_card_cvv", 0.5)),
}  # fmt: skip
"""Of OntoNotes 5, and of OpenAI's privacy filter."""
PERHAPS_PEOPLE = frozenset({"ORG", "GPE", "FAC", "NORP", "LOC", "PRODUCT", "WORK_OF_ART"})
FIRST_NAMES = frozenset(people("first"))
SURNAMES = frozenset(people("last"))
FULL_NAMES = FIRST_NAMES | SURNAMES | frozenset(people("first_or_word"))
BEFORE_PLACE = frozenset(["in", "from", "near", "of", "to", "at"])
MEDICAL_FACILITY = re.compile(
    r"hospital|clinic|medical|infirmary|surgery|hospice|healthcare", re.IGNORECASE
)
TITLES = words("titles")
SURE_NAME_CUES = said_before("person_name")
ORG_CUES = said_before("organization")
PLACE_CUES = said_before("location")
ORG_SUFFIXES = words("org_suffixes")
NOT_NAMES = words("not_names")
NOT_ENTITIES = re.compile(
    r"CV[VC]2?|IBAN|IP|SSN|VIN|PIN|DOB|ID|URL|ZIP|MRN|NHS|ATM|USD|OK|TV|Medicare|Medicaid|Visa|Mastercard",
    re.IGNORECASE,
)
"""What a model takes for the name of an organisation, and is none."""
CLASSES = (
    "zodiac_sign", "marital_status", "religion", "gender", "sexuality", "political_affiliation",
    "language", "nationality",
)  # fmt: skip
CLOSED = {name: pattern(name) for name in CLASSES}
"""Whole words, in lower case."""
ONLY_CAPITAL = frozenset({"zodiac_sign", "nationality", "language", "religion"})


def entities(found: Iterable[Entity], words: Sequence[str]) -> Iterator[Finding]:
    """Findings of a model's entities, by what its labels mean here (``LABELS``) and by the words
    before."""
    for entity in found:
        if NOT_ENTITIES.fullmatch(words[entity.first].strip(".,?!'")):
            continue
        label, certain = entity.label, ((entity.label, entity.score),)
        for policy, score in LABELS.get(label, certain if label in POLICIES else ()):
            yield Finding(policy, entity.first, entity.last, score)
        text = " ".join(words[entity.first : entity.last + 1])
        if entity.label in {"ORG", "FAC"} and MEDICAL_FACILITY.search(text):
            yield Finding("organization_medical_facility", entity.first, entity.last, 0.7)
        before = " ".join(words[max(entity.first - 3, 0) : entity.first]).lower()
        if entity.label in {"PERSON", "GPE", "FAC"} and ORG_CUES.fullmatch(before):
            yield Finding("organization", entity.first, entity.last, 0.6)
        if entity.label in PERHAPS_PEOPLE and SURE_NAME_CUES.fullmatch(before):
            yield Finding("person_name", entity.first, entity.last, 0.6)
        if entity.label in {"PERSON", "ORG"} and PLACE_CUES.fullmatch(before):
            yield Finding("location", entity.first, entity.last, 0.6)


def _named(atom: Atom) -> bool:
    """Whether it may be part of a name: a word with a capital."""
    return (
        atom.capital
        and atom.kind is Kind.WORD
        and atom.text not in NOT_NAMES
        and len(atom.text) > 1
    )


def _capital_run(atoms: Sequence[Atom], start: int, most: int, joining: frozenset[str]) -> int:
    """The last atom of a run of names from ``start`` on, ``most`` atoms at most, with ``joining``
    words between; -1 if there is none."""
    last = -1
    for at in range(start, min(start + most, len(atoms))):
        if _named(atoms[at]) or (last >= 0 and atoms[at].kind is Kind.LETTER and atoms[at].capital):
            last = at
            if atoms[at].stop and len(atoms[at].text) > 2:
                break
        elif not (last >= 0 and atoms[at].text in joining):
            break
    return last


NAME_JOINTS = words("name_joints")
ORG_JOINTS = words("org_joints")


def announced(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings after the words that precede names, and of organisations by their last word."""
    texts = [atom.text for atom in atoms]
    for at in range(len(atoms)):
        if at and _named(atoms[at - 1]) and atoms[at - 1].text not in TITLES:
            continue  # the middle of a run
        before = " ".join(texts[max(at - 4, 0) : at])
        if at and texts[at - 1] in TITLES:
            yield from _run(atoms, "person_name", at, 3, NAME_JOINTS, 0.8)
        elif SURE_NAME_CUES.fullmatch(before):
            yield from _run(atoms, "person_name", at, 4, NAME_JOINTS, 0.8)
        if ORG_CUES.fullmatch(before):
            yield from _run(atoms, "organization", at, 7, ORG_JOINTS, 0.7)
        elif at > 1 and texts[at - 1] == "from" and _named(atoms[at - 2]):
            yield from _run(atoms, "organization", at, 7, ORG_JOINTS, 0.5)
        if PLACE_CUES.fullmatch(before):
            yield from _run(atoms, "location", at, 7, frozenset({"of", ","}), 0.6)
        elif at and texts[at - 1] in {"in", "near"}:
            yield from _run(atoms, "location", at, 4, frozenset({"of"}), 0.42)
        if _named(atoms[at]):
            last = _capital_run(atoms, at, 7, ORG_JOINTS)
            if last > at and texts[last] in ORG_SUFFIXES:
                yield finding(atoms, "organization", at, last, 0.7)
            if last > at and MEDICAL_FACILITY.fullmatch(texts[last]):
                yield finding(atoms, "organization_medical_facility", at, last, 0.7)
                yield finding(atoms, "organization", at, last, 0.6)


def _run(
    atoms: Sequence[Atom], policy: str, at: int, most: int, joints: frozenset[str], score: float
) -> Iterator[Finding]:
    """A finding of the run of names that starts at ``at``, if there is one."""
    last = _capital_run(atoms, at, most, joints)
    if last >= 0:
        yield finding(atoms, policy, at, last, score)


def known_people(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of listed first names with the names after them. A first name that is also a word,
    or stands where a place does, counts only with a surname."""
    for at, atom in enumerate(atoms):
        if not _named(atom) or (at and _named(atoms[at - 1]) and not atoms[at - 1].stop):
            continue
        last = _capital_run(atoms, at, 4, NAME_JOINTS)
        alone = last == at
        place = at > 0 and atoms[at - 1].text in BEFORE_PLACE
        first = atom.text in FIRST_NAMES and not (alone and place)
        pair = not alone and atoms[last].text in SURNAMES and atom.text in FULL_NAMES
        if first or pair:
            yield finding(atoms, "person_name", at, last, 0.5)


def firms(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of firms named after people: "Hammond, Wallace and Young", "Perry-Flores"."""
    for at, atom in enumerate(atoms):
        if not _named(atom):
            continue
        texts = [each.text for each in atoms[at : at + 4]]
        named = [_named(each) for each in atoms[at : at + 4]]
        if named[:2] == [True, True] and texts[2:3] == ["and"] and named[3:] == [True]:
            yield finding(atoms, "organization", at, at + 3, 0.6)
        hyphen = named[:1] + named[2:3] == [True, True] and texts[1] == "-"
        if hyphen and atom.first == atoms[at + 2].last:
            yield finding(atoms, "organization", at, at + 2, 0.5)


BEFORE_SPELLED = frozenset(
    ["name", "name's", "spelled", "spell", "spells", "that's", "last", "first", "surname"]
)


def spelled(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of names in single letters, after a name or what announces one: S M I T H."""
    at = 0
    while at < len(atoms):
        last = at
        while last < len(atoms) and (
            atoms[last].kind is Kind.LETTER
            or (atoms[last].text in {"a", "i", "o", "-"} and last > at)
            or (atoms[last].text in {"a", "i", "o"} and last + 1 < len(atoms)
                and atoms[last + 1].kind is Kind.LETTER)
        ):  # fmt: skip
            last += 1
        if last - at >= 3:
            before = {atom.text for atom in atoms[max(at - 8, 0) : at]}
            if before & BEFORE_SPELLED:
                yield finding(atoms, "person_name", at, last - 1, 0.7)
        at = max(last, at + 1)


def closed_classes(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of the lists' members."""
    for at, atom in enumerate(atoms):
        if atom.kind is not Kind.WORD:
            continue
        for policy, listed in CLOSED.items():
            pair = f"{atom.text} {atoms[at + 1].text}" if at + 1 < len(atoms) else ""
            if listed.fullmatch(atom.text):
                last = at
            elif pair and listed.fullmatch(pair):
                last = at + 1
            else:
                continue
            if policy in ONLY_CAPITAL and not atom.capital:
                continue
            yield finding(atoms, policy, at, last, 0.6)
            if policy in {"gender", "sexuality"}:
                yield finding(atoms, "gender_sexuality", at, last, 0.6)
    yield from _blood_types(atoms)


def _blood_types(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings of blood types, where the context or a capital shows that it is one."""
    for at in range(len(atoms) - 1):
        sign = atoms[at + 1].text in {"positive", "negative", "+", "-"}
        group = atoms[at].text in {"a", "b", "o", "ab"}
        around = {atom.text for atom in atoms[max(at - 8, 0) : at + 5]}
        if group and sign and (atoms[at].capital or "blood" in around or "type" in around):
            paired = at > 0 and atoms[at - 1].text == "a" and atoms[at].text == "b"
            yield finding(atoms, "blood_type", at - paired, at + 1, 0.7)
