"""User names and passwords, by the words around them."""

import re
from collections.abc import Iterator, Sequence

from ssasr.gateway.redaction.lexicon import pattern, said_before, words
from ssasr.gateway.redaction.policies import Finding, finding
from ssasr.gateway.redaction.spoken import Atom, Kind, cut_words

SECRETS = {
    "password": re.compile(r"passwords?|password's|passcodes?|passphrase|pin|pin's|secret"),
    "username": re.compile(r"usernames?|username's|handle|login|login's|userid"),
}
LOST_LETTER = cut_words(["username", "password", "passcode", "login", "user"])
BEFORE_SECRET = frozenset({"is", "was", "to", ":", "it's", "as", "tried", "be", "used", "says"})
ENDS_SECRET = words("ends_secret")
NO_SECRET = words("no_secret")
"""What is said of a secret that is not given."""


AS_NAME = said_before("username")
TYPED = said_before("password")
ABOUT_LOGIN = pattern("about login")
AS_MY = (["as", "my"], ["as", "the"], ["is", "my"])


def credentials(atoms: Sequence[Atom]) -> Iterator[Finding]:
    """Findings after "my password is", "the PIN for the card is", "I log in as", and before "as my
    login"."""
    texts = [LOST_LETTER.get(atom.text, atom.text) for atom in atoms]
    yield from _used(atoms, texts)
    for at in range(len(atoms) - 1):
        pair = texts[at] == "user" and texts[at + 1] in {"name", "id", "name's"}
        if pair or SECRETS["username"].fullmatch(texts[at]):
            yield from _announced(atoms, "username", at + pair)
        elif SECRETS["password"].fullmatch(texts[at]) or texts[at - 1 : at + 1] == ["my", "pen"]:
            yield from _announced(atoms, "password", at)
        if _looks_like_username(atoms, at):
            yield finding(atoms, "username", at, at + 1, 0.45)
        if at > 0 and texts[at : at + 2] in AS_MY and _is_username(texts[at + 2 : at + 3]):
            yield finding(atoms, "username", at - 1, at - 1, 0.6)


def _used(atoms: Sequence[Atom], texts: Sequence[str]) -> Iterator[Finding]:
    """Findings after "I log in as", and of what is typed where a login is talked about, without a
    cue of its own: "I type in blue nine four and it says wrong"."""
    for at in range(1, len(atoms)):
        before = " ".join(texts[max(at - 4, 0) : at])
        if _is_username(texts[at : at + 1]):
            continue
        if AS_NAME.fullmatch(before) and not _says_nothing(atoms, at):
            yield finding(atoms, "username", at, at + _has_digits(atoms, at + 1), 0.6)
        elif TYPED.fullmatch(before) and not _says_nothing(atoms, at):
            around = texts[max(at - 16, 0) : at + 16]
            given = _end_of_digits(atoms, at)
            if given and any(ABOUT_LOGIN.fullmatch(text) for text in around):
                yield finding(atoms, "password", at, given, 0.5)


def _has_digits(atoms: Sequence[Atom], at: int) -> bool:
    """Whether atom ``at`` is digits in the same word as the atom before."""
    return (
        at < len(atoms) and atoms[at].kind is Kind.DIGITS and atoms[at - 1].last == atoms[at].first
    )


def _end_of_digits(atoms: Sequence[Atom], at: int) -> int:
    """The last atom of something with digits from ``at`` on, after two other words at most; 0 if
    there is none."""
    last, digits = at, False
    while last < min(at + 8, len(atoms)):
        digit = bool(atoms[last].code) and atoms[last].code.isdigit()
        digits = digits or digit
        if (
            atoms[last].text in ENDS_SECRET
            or (digits and not digit)
            or (last - at > 2 and not digits)
        ):
            break
        last += 1
        if atoms[last - 1].stop:
            break
    return last - 1 if digits else 0


def _looks_like_username(atoms: Sequence[Atom], at: int) -> bool:
    """Whether small letters and digits follow in one word: "yvonne40"."""
    name, digits = atoms[at], atoms[at + 1]
    plain = name.kind is Kind.WORD and not name.capital and len(name.text) > 2
    return plain and digits.kind is Kind.DIGITS and digits.first == name.last


def _is_username(texts: Sequence[str]) -> bool:
    """Whether one of the texts stands for a user name."""
    return any(text == "user" or SECRETS["username"].fullmatch(text) for text in texts)


def _announced(atoms: Sequence[Atom], policy: str, cue: int) -> Iterator[Finding]:
    """Findings after the word for a credential at ``cue``."""
    start = cue + 1
    if start < len(atoms) and atoms[start].text in {"number", "code", "name", "id"}:
        start += 1
    contracted = atoms[start - 1].text.endswith("'s")
    before = start - 1 if contracted else _announces(atoms, start)
    directly = start < len(atoms) and not (contracted or atoms[start - 1].stop)
    directly = directly and atoms[start].text not in BEFORE_SECRET
    if directly and (given := _end_of_digits(atoms, start)):
        yield finding(atoms, policy, start, given, 0.5)  # "password green three seven"
    elif policy == "username" and before != start - 1 and _follows(atoms, start):
        yield finding(atoms, policy, start, start, 0.5)  # "the username jdoe"
    elif before >= 0:
        yield from _secret(atoms, policy, before)


def _announces(atoms: Sequence[Atom], start: int) -> int:
    """The atom within a few of ``start`` that announces a credential ("is", "was", "tried"); -1."""
    for at in range(start, min(start + 5, len(atoms))):
        if at > start and atoms[at - 1].stop:
            return -1
        if atoms[at].text in BEFORE_SECRET:
            while at + 1 < len(atoms) and atoms[at + 1].text in {"to", "be", "is", ":"}:
                at += 1
            return at if at + 1 < len(atoms) and not atoms[at].stop else -1
    return -1


def _follows(atoms: Sequence[Atom], at: int) -> bool:
    """Whether a credential may begin at ``at`` although nothing announces it."""
    if at >= len(atoms) or atoms[at - 1].stop or atoms[at].text in BEFORE_SECRET:
        return False
    return not _says_nothing(atoms, at)


def _says_nothing(atoms: Sequence[Atom], at: int) -> bool:
    """Whether the word shows that no credential is given."""
    return atoms[at].text in NO_SECRET or atoms[at].kind is Kind.SYMBOL


def _secret(atoms: Sequence[Atom], policy: str, before: int) -> Iterator[Finding]:
    """Findings after atom ``before``, up to the end of the sentence or of what may be a secret."""
    last = before
    while last + 1 < len(atoms) and last - before < 12:
        following = atoms[last + 1].text
        if (following in ENDS_SECRET and last > before) or (
            last == before and _says_nothing(atoms, last + 1)
        ):
            break
        last += 1
        if atoms[last].stop:
            break
    if last > before:
        yield finding(atoms, policy, before + 1, last, 0.7)
    elif policy == "password" and (given := _end_of_digits(atoms, before + 1)):
        yield finding(atoms, policy, before + 1, given, 0.5)
