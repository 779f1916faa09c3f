"""Key terms in greedy decoding.

A text is decoded greedily, as if there were no terms. Where some of its words sound like a term of
the stream's list, and the model was not sure of them, the decoder is asked what the term is worth
in their place: one pass over the term and the few tokens after it. The term is written if the text
with it is less likely by no more than ``strength`` times how alike the two are, in natural
logarithms. Usual words give way only to what is very much like them, and where the model doubted
them. All other words stay as they are.

So a term that nothing in the text sounds like costs nothing and changes nothing, a strength of 0
changes nothing, and each decision depends only on the greedy text and the model's own
probabilities, not on the draft or on other rows of the batch. Texts are gone through from their end
to their beginning: what the decoder has read before a place is still there when its turn comes.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from math import expm1, inf, log

import jellyfish
import numpy as np
from attrs import define, evolve, field, frozen
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from ssasr.engine.tokenizers import UNSPACED, WhisperTokenizer
from ssasr.engine.whisper.hypothesis_alignment import bare

STRENGTH = 10.0
"""Of terms that sound exactly like what they replace. Chosen with the two below on 72 clips of the
half that settings are chosen on (tiny.en, ten lists of a hundred for each): of 23 terms that were
tried and said 17 are written, and 1.0 an hour and list that nobody said; with 12 against every word
19, and 6.2."""
USUAL_WORD = 1.3
"""Times the strength against usual words, those of one token each, which the model seldom takes a
rare word for: there likeness counts twice. The first choice, half the strength for them, was as
good on that half but left 0.52 of the misses on the other, 0.45 with this."""
USUAL_ROOM = -1.4
"""The least room for a term in place of usual words: the model gives others a fifth at least."""
WEAK = 0.5
"""Of a name that was only mentioned before, as a share of the strength of a key term: of those 23
terms 12 are written then, and none that nobody said."""
ALIKE = 0.6
"""The least likeness, from 0 to 1, at which a term is tried."""
ROOM = 0.4
"""Share of what a term may cost that the model's doubt of the words alone must make up for: where
it was surer, one term in nine of those that would have been written was found, for as many passes
again (tiny.en, 40 clips)."""
MOST_TRIALS = 3
"""Terms tried in one text; each costs a pass, a twentieth of what a decode costs."""
EVEN = 2.0
"""More room than this says no more for a term."""
AFTER = 2
"""Tokens after a term that must be as likely as they were."""
LONGEST = 40
"""Tokens of a term at most: those of more are not tried."""
WIDEST = 8
"""Words that are compared with terms, at most: what a list may cost is bounded."""
KNOWN = 1_024
"""Spans whose likeness is remembered: two texts about the same audio share most of theirs."""


@frozen
class Term:
    """A term as it is to be written, and what is compared."""

    text: str
    letters: str
    sound: str
    words: int
    weight: float = 1.0

    def may_replace(self, written: Sequence[str]) -> bool:
        """Words that hold these terms: only as a longer one, never to drop a word beside it."""
        return all(each in self.letters and each != self.letters for each in written)


@frozen
class Trial:
    """A term's tokens in place of those from ``begin`` to ``end``."""

    begin: int
    end: int
    tokens: tuple[int, ...]
    cost: float
    """How much less likely the text may be."""
    last: int
    """The token that ends a text."""
    after: tuple[int, ...] = ()
    """What follows in the text."""

    def followed_by(self, tokens: Sequence[int]) -> "Trial":
        """In a text of these."""
        following = (*tokens[self.end : self.end + AFTER], self.last)[:AFTER]
        return evolve(self, after=following)

    @property
    def longest(self) -> int:
        """Tokens of the text with what is tried."""
        return self.begin + len(self.tokens) + AFTER

    @property
    def asked(self) -> tuple[int, ...]:
        """The tokens whose probabilities decide."""
        return self.tokens + self.after


@frozen
class _Span:
    """The words from ``first`` to ``last``, and which terms they hold already."""

    first: int
    last: int
    letters: str
    written: Sequence[str]


@define(eq=False)
class Terms:
    """A stream's list. Used by several threads; what it remembers is the same for all."""

    listed: Sequence[Term]
    tokenizer: WhisperTokenizer
    strength: float = STRENGTH
    _by_letters: dict[str, Term] = field(init=False)
    _capitals: dict[str, list[list[tuple[str, str]]]] = field(init=False)
    """Terms with a capital by what their first word is compared by: each word, and its key."""
    _known: dict[str, list[tuple[Term, float]]] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._by_letters = {term.letters: term for term in self.listed}
        self._capitals = {}
        for term in self.listed:
            if term.weight == 1 and term.text != term.text.lower():
                parts = [(bare(part), part) for part in term.text.split()]
                self._capitals.setdefault(parts[0][0], []).append(parts)

    def trials(
        self, tokens: Sequence[int], logprobs: Sequence[float], language: str
    ) -> list[Trial]:
        """What is to be tried in a text that the end follows, the last place first. ``logprobs``:
        of the tokens and the end."""
        words = self.tokenizer.words(tokens, language)
        places = np.cumsum([0, *map(len, words)]).tolist()
        if places[-1] != len(tokens):
            return []  # half a character at the end
        texts = [bare(self.tokenizer.text(word)) for word in words]
        usual = [self._is_usual(word, language) for word in words]
        found = []
        for span in self._spans(texts, self._widest(language)):
            for term, alike in self._alike(span.letters, span.last + 1 - span.first):
                if term.may_replace(span.written):
                    begin, end = places[span.first], places[span.last + 1]
                    known = all(usual[span.first : span.last + 1])
                    share = USUAL_WORD * alike**2 if known else alike
                    trial = self._trial(term, share, begin, end, tokens)
                    room = _room(trial, tokens, logprobs)
                    least = max(-ROOM * trial.cost, USUAL_ROOM if known else -inf)
                    if room >= least and len(trial.tokens) <= LONGEST:
                        found.append((trial.cost + min(room, EVEN), trial))
        best = sorted(found, key=lambda each: -each[0])[:MOST_TRIALS]
        best.sort(key=lambda each: (-each[1].begin, -each[0]))
        return [trial for _, trial in best]

    def cased(self, texts: Sequence[str]) -> list[str]:
        """Words, written as the terms that they are: of terms with a capital only, since a small
        letter may stand for one that a sentence begins with, and of no mere names: many are words.
        """
        cased, keys = list(texts), [bare(text) for text in texts]
        for first, key in enumerate(keys):
            for parts in self._capitals.get(key, ()):
                if keys[first : first + len(parts)] == [each for each, _ in parts]:
                    for place, (_, part) in enumerate(parts, first):
                        cased[place] = _rewritten(texts[place], part)
        return cased

    def _spans(self, texts: Sequence[str], widest: int) -> list["_Span"]:
        """So many words that follow each other, at most, and the terms among them."""
        spans = []
        written: list[list[str]] = [[] for _ in texts]
        for first in range(len(texts)):
            letters = ""
            for last in range(first, min(first + widest, len(texts))):
                letters += texts[last]
                spans.append((first, last, letters))
                term = self._by_letters.get(letters)
                if term is not None and last + 1 - first in (1, term.words):
                    for place in range(first, last + 1):
                        written[place].append(letters)
        return [
            _Span(first, last, letters, list(chain(*written[first : last + 1])))
            for first, last, letters in spans
        ]

    def _widest(self, language: str) -> int:
        """Words of a span: one more than the longest term has, if that is not too many."""
        unspaced = language in UNSPACED
        longest = max(len(one.letters) if unspaced else one.words for one in self.listed)
        return min(longest + 1, WIDEST)

    def _alike(self, letters: str, words: int) -> list[tuple[Term, float]]:
        """The terms that sound like these words, and how much. None where one is there already."""
        known = self._known.get(letters)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            known = self._known[letters] = self._compare(letters)
        return [
            (term, alike) for term, alike in known if term.letters != letters or term.words != words
        ]

    def _compare(self, letters: str) -> list[tuple[Term, float]]:
        """By letters and by sounds, one half each, but sounds never against a term."""
        by_letters = process.cdist(
            [letters], [term.letters for term in self.listed],
            scorer=Levenshtein.normalized_similarity, score_cutoff=2 * ALIKE - 1,
        )[0]  # fmt: skip
        sound, found = _sound(letters), []
        for number in np.flatnonzero(by_letters).tolist():
            term, alike = self.listed[number], float(by_letters[number])
            if sound and term.sound:
                sounds = Levenshtein.normalized_similarity(sound, term.sound)
                alike = max(alike, (alike + sounds) / 2)
            if alike >= ALIKE:
                found.append((term, alike))
        return found

    def _is_usual(self, word: Sequence[int], language: str) -> bool:
        """One token, but for marks; where words are not written apart, nothing says so."""
        marks = self.tokenizer.marks
        return language not in UNSPACED and sum(token not in marks for token in word) <= 1

    def _trial(
        self, term: Term, share: float, begin: int, end: int, tokens: Sequence[int]
    ) -> Trial:
        """The term as it would stand there: between the marks and after the space. ``share``: of
        the strength."""
        marks = self.tokenizer.marks
        while begin < end - 1 and tokens[begin] in marks:
            begin += 1
        while begin < end - 1 and tokens[end - 1] in marks:
            end -= 1
        written = self.tokenizer.decode(tokens[begin:end])
        opening = written[: len(written) - len(written.lstrip())]
        text = term.text
        if written.strip()[:1].isupper():
            text = text[:1].upper() + text[1:]
        spelled = tuple(self.tokenizer.encode(opening + text))
        return Trial(begin, end, spelled, self.strength * term.weight * share, self.tokenizer.end)


def _rewritten(text: str, part: str) -> str:
    """The same word with the casing of ``part``; the marks around it stay."""
    at = text.lower().find(part.lower())
    if at < 0 or len(text.lower()) != len(text):
        return text
    return text[:at] + part + text[at + len(part) :]


def _room(trial: Trial, tokens: Sequence[int], logprobs: Sequence[float]) -> float:
    """The most that the term's first token that differs can be likelier than the text's own: all
    that the model left for others."""
    span = tokens[trial.begin :], trial.tokens, logprobs[trial.begin :]
    for own, other, logprob in zip(*span, strict=False):
        if own != other:
            rest = -expm1(min(logprob, -1e-7))
            return log(rest) - logprob
    return inf


def gain(trial: Trial, asked: Sequence[float], logprobs: Sequence[float]) -> float:
    """How much likelier the text is with the term. ``asked``: log probabilities of
    ``trial.asked``; ``logprobs``: of the text as it is and of its end."""
    own = logprobs[trial.begin : trial.end + len(trial.after)]
    return float(sum(asked) - sum(own))


def _sound(letters: str) -> str:
    """How it sounds in English: for letters without marks only."""
    return jellyfish.metaphone(letters) if letters.isascii() else ""


@lru_cache(maxsize=256)
def terms_of(
    keyterms: tuple[str, ...],
    tokenizer: WhisperTokenizer,
    strength: float = STRENGTH,
    names: tuple[str, ...] = (),
) -> Terms | None:
    """A stream's terms; None if there are none. Streams with the same list share it."""
    weights = dict.fromkeys(names, WEAK) | dict.fromkeys(keyterms, 1.0)
    listed = [
        _term(text, weight) for text, weight in weights.items() if any(map(str.isalnum, text))
    ]
    return Terms(listed, tokenizer, strength) if listed and strength > 0 else None


def _term(text: str, weight: float) -> Term:
    words = text.split()
    letters = "".join(map(bare, words))
    return Term(" ".join(words), letters, _sound(letters), len(words), weight)
