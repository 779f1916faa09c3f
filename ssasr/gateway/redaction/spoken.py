"""What was said, in the form that a rule can read: spoken numbers as digits, letters one by one,
"dot" and "at" as what they stand for; each piece knows the words that it came from.

A recogniser writes a number as digits, as words, or as a mixture, and cuts it where the speaker
breathed. All of these become the same atoms here: ``4111 1111``, ``four one one one double one
one one``, ``forty one eleven``.
"""

import enum
import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from ssasr.gateway.redaction.lexicon import listed


class Kind(enum.Enum):
    DIGITS = "digits"
    LETTER = "letter"
    SYMBOL = "symbol"
    WORD = "word"


@frozen
class Atom:
    """One piece. ``text``: digits, a lower-case letter or word, or a symbol. ``code``: what it
    stands for within a number or a spelled word, "" if it cannot be part of one. ``capital``: it
    was written with one. ``stop``: a sentence may have ended behind it. ``pronounced``: a number
    that was written as a word, or one digit alone."""

    kind: Kind
    text: str
    first: int
    last: int
    code: str = ""
    capital: bool = False
    stop: bool = False
    ordinal: bool = False
    pronounced: bool = False


UNITS = {word: number for number, word in enumerate(listed("numbers"))} | {
    "nought": 0, "naught": 0, "niner": 9, "fife": 5,
}  # fmt: skip
TENS = {word: 10 * number for number, word in enumerate(listed("tens"), start=2)} | {"fourty": 40}
ORDINALS = {word: number for number, word in enumerate(listed("ordinals"), start=1)} | {
    "thirtieth": 30
}
REPEATS = {"double": 2, "triple": 3, "treble": 3, "quadruple": 4, "quad": 4}
SYMBOLS = {
    "dot": ".", "period": ".", "dash": "-", "hyphen": "-", "minus": "-", "underscore": "_",
    "slash": "/", "backslash": "/", "hash": "#", "plus": "+", "colon": ":",
}  # fmt: skip
SOUNDS_LIKE = {
    "oh": "0", "o": "0", "to": "2", "too": "2", "for": "4", "fore": "4", "ate": "8", "won": "1",
    "tree": "3", "sex": "6", "sax": "6", "nein": "9", "mine": "9", "wan": "1", "fur": "4",
    "tu": "2", "free": "3", "hive": "5", "sicks": "6", "sick": "6", "nun": "1",
    "tw": "2", "si": "6", "shell": "0", "hero": "0", "level": "7", "time": "9", "a": "a", "i": "i",
}  # fmt: skip
"""Words that stand for a digit or a letter only in the midst of others."""
WORDS_OF_THEIR_OWN = frozenset(listed("whole"))
"""Not taken for a number or a cue that has lost a letter."""


def cut_words(words: Iterable[str]) -> dict[str, str]:
    """What each word of four letters or more becomes when a recogniser loses one, and the word."""
    known = set(words)
    return {
        short: word
        for word in sorted(known)
        if len(word) > 3
        for short in (word[:at] + word[at + 1 :] for at in range(len(word)))
        if short not in known and short not in WORDS_OF_THEIR_OWN
    }


CUT = cut_words([*UNITS, *TENS, *REPEATS])
"""Numbers with a letter lost, and what they are: only in the midst of others, too."""
CUT_ORDINALS = cut_words(ORDINALS)
ALPHABET = {word: word[0] for word in listed("alphabet")}
LETTER_NAMES = {"bee": "b", "cee": "c", "dee": "d", "gee": "g", "jay": "j", "kay": "k", "ell": "l",
                "em": "m", "pee": "p", "cue": "q", "vee": "v", "ex": "x", "zee": "z",
                "zed": "z"}  # fmt: skip
_PIECE = re.compile(
    r"\d+(?:st|nd|rd|th)\b|\d+|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s]|_", re.IGNORECASE
)
_NUMBER_WITH_COMMAS = re.compile(r"\d{1,3}(?:,\d{3})+")
_OUTER = '"“”()[]«»¿¡'


@frozen
class _Piece:
    text: str
    word: int
    capital: bool
    stop: bool
    upper: bool
    """Letters of a code: GB82, WEST."""


def _pieces(words: Sequence[str]) -> list[_Piece]:
    """The words cut into pieces, without outer marks and hesitations."""
    found = []
    for index, word in enumerate(words):
        bare = word.strip(_OUTER)
        inner = bare.rstrip(".,;:?!…")
        if inner.lower() in HESITATIONS:
            continue
        stop = bool(re.search(r"[.?!…]", bare[len(inner) :]))
        inner = _NUMBER_WITH_COMMAS.sub(lambda match: match[0].replace(",", ""), inner)
        texts = _PIECE.findall(inner)
        for place, text in enumerate(texts):
            ends = stop and place == len(texts) - 1
            upper = text.isalpha() and text.isupper() and len(text) < 6
            found.append(
                _Piece(text.lower().replace("’", "'"), index, text[:1].isupper(), ends, upper)
            )
    return found


class _Reader:
    """One pass over the pieces, longest reading first."""

    def __init__(self, words: Sequence[str]) -> None:
        self.pieces = _pieces(words)
        self.at = 0
        self.atoms: list[Atom] = []

    def text(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.pieces[index].text if index < len(self.pieces) else ""

    def add(self, kind: Kind, text: str, length: int, **more: object) -> None:
        """The next ``length`` pieces are this atom."""
        taken = self.pieces[self.at : self.at + length]
        self.atoms.append(
            Atom(kind, text, taken[0].word, taken[-1].word, capital=taken[0].capital,
                 stop=taken[-1].stop, **more)  # type: ignore[arg-type]
        )  # fmt: skip
        self.at += length

    def run(self) -> list[Atom]:
        while self.at < len(self.pieces):
            if not (self._repeat() or self._number() or self._spelled()):
                self._plain()
        return self.atoms

    def _repeat(self) -> bool:
        """ "double seven", "triple o"."""
        times = REPEATS.get(CUT.get(self.text(), self.text()))
        if times is None:
            return False
        following = self.text(1)
        if following.isdecimal() and len(following) > 1:  # "double 3228"
            digits = following[0] * (times - 1) + following
            self.add(Kind.DIGITS, digits, 2, code=digits)
            return True
        digit = self._digit_of(following) or self._misheard_digit(following)
        letter = self.text(1) if len(self.text(1)) == 1 and self.text(1).isalpha() else ""
        one = digit or letter
        if not one or (times == 2 and one == "u"):
            return False
        kind = Kind.DIGITS if digit else Kind.LETTER
        self.add(kind, one * times, 2, code=one * times, pronounced=True)
        return True

    @staticmethod
    def _misheard_digit(text: str) -> str:
        code = SOUNDS_LIKE.get(text) or str(UNITS.get(CUT.get(text, ""), ""))
        return code if code.isdigit() and len(code) == 1 else ""

    @staticmethod
    def _digit_of(text: str) -> str:
        if text in {"o", "oh"}:
            return "0"
        if text.isdecimal() and len(text) == 1:
            return text
        number = UNITS.get(text, 10)
        return str(number) if number < 10 else ""

    def _number(self) -> bool:
        text = self.text()
        if text[:1].isdecimal():
            digits = re.match(r"\d+", text)
            assert digits is not None
            ordinal = digits[0] != text
            self.add(Kind.DIGITS, digits[0], 1, code=digits[0], ordinal=ordinal,
                     pronounced=len(digits[0]) == 1)  # fmt: skip
            return True
        value, length, ordinal = self._below_hundred(0)
        if length == 0:
            return False
        if not ordinal:
            value, length = self._with_hundreds(value, length)
        digits_text = str(value)
        self.add(Kind.DIGITS, digits_text, length, code=digits_text, ordinal=ordinal,
                 pronounced=True)  # fmt: skip
        return True

    def _below_hundred(self, ahead: int) -> tuple[int, int, bool]:
        """Value, pieces it took (0: no number), whether it is an ordinal."""
        text = self.text(ahead)
        if text in UNITS:
            return UNITS[text], 1, False
        if text in ORDINALS and text != "second":
            return ORDINALS[text], 1, True
        skip = 2 if self.text(ahead + 1) == "-" else 1
        follower = self.text(ahead + skip)
        unit = UNITS.get(follower, 0)
        if 0 < unit < 10:
            text = CUT.get(text, text)  # "fort eight"
        if text not in TENS:
            return 0, 0, False
        if 0 < unit < 10:
            return TENS[text] + unit, skip + 1, False
        if 0 < ORDINALS.get(follower, 0) < 10:
            return TENS[text] + ORDINALS[follower], skip + 1, True
        return TENS[text], 1, False

    def _with_hundreds(self, value: int, length: int) -> tuple[int, int]:
        """ "four hundred and twelve", "two thousand six"."""
        for word, factor in (("hundred", 100), ("thousand", 1_000)):
            if self.text(length) != word:
                continue
            value, length = value * factor, length + 1
            skip = 1 if self.text(length) == "and" else 0
            rest, more, ordinal = self._below_hundred(length + skip)
            if more and not ordinal and self.text(length + skip + more) != "thousand":
                if factor == 1_000 and self.text(length + skip + more) == "hundred":
                    rest, more = rest * 100, more + 1
                value, length = value + rest, length + skip + more
        return value, length

    def _spelled(self) -> bool:
        """ "b as in boy", "b for bravo", "B", "bravo"."""
        text = self.text()
        single = len(text) == 1 and text.isalpha()
        if single and self.text(1) == "as" and self.text(2) == "in":
            self.add(Kind.LETTER, text, min(4, len(self.pieces) - self.at), code=text)
            return True
        if single and self.text(1) in {"for", "like"} and self.text(2)[:1] == text:
            self.add(Kind.LETTER, text, 3, code=text)
            return True
        if text == "double" and self.text(1) in {"u", "you"}:
            self.add(Kind.LETTER, "w", 2, code="w")
            return True
        if single and text not in {"a", "i", "o"}:
            self.add(Kind.LETTER, text, 1, code=text)
            return True
        return False

    def _plain(self) -> None:
        text = self.text()
        if text in SYMBOLS:
            self.add(Kind.SYMBOL, SYMBOLS[text], 1)
        elif not text[:1].isalpha():
            self.add(Kind.SYMBOL, text, 1)
        else:
            code = SOUNDS_LIKE.get(text) or ALPHABET.get(text) or LETTER_NAMES.get(text, "")
            if not code and text in CUT:
                code = str(UNITS.get(CUT[text], TENS.get(CUT[text], "")))
            if not code and self.pieces[self.at].upper:
                code = text
            self.add(Kind.LETTER if self._within_code() else Kind.WORD, text, 1, code=code)

    def _within_code(self) -> bool:
        """Letters in capitals with digits in the same word."""
        here = self.pieces[self.at]
        beside = self.pieces[max(self.at - 1, 0) : self.at + 2]
        return here.upper and any(
            piece.word == here.word and piece.text.isdigit() for piece in beside
        )


HESITATIONS = frozenset(["uh", "um", "er", "erm", "hmm", "mm"])


def read(words: Sequence[str]) -> list[Atom]:
    """The atoms of these words, in order; their ranges of words do not go back. Hesitations give
    none: what they stand in the midst of reaches over them."""
    return _Reader(words).run()
