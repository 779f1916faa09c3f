"""The tokenizer's pieces, and words made of them.

Only the way from tokens to text is needed. A piece that begins with ``▁`` begins a word;
everything else continues one. Bytes of characters that have no piece of their own come as
``<0xE2>``; language tags as ``<en-US>``. A greedy transducer never takes a token back, so a word
is final as soon as the next begins.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from ssasr.engine.fastconformer.config import FRAME, ModelConfig
from ssasr.errors import WeightsError
from ssasr.protocol.recognition import Word
from ssasr.protocol.text import ends_sentence

_WORD_START = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_TAG = re.compile(r"<(?!unk>|pad>)([a-z]{2,3})(?:-[A-Za-z]{2,4})?>")
_OPEN_TAG = re.compile(r"<[a-zA-Z-]{0,7}$")


@frozen
class Piece:
    """``text`` of a token, or ``byte`` of a character, or neither (padding, unknown)."""

    text: str = ""
    byte: bytes = b""
    starts_word: bool = False


@frozen
class PieceTable:
    """All pieces, by token id."""

    table: tuple[Piece, ...]
    tokenizer: Tokenizer | None = None

    def encode(self, text: str) -> tuple[int, ...]:
        """Its tokens; none if the pieces cannot spell it."""
        if self.tokenizer is None:
            return ()
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        known = all(token < len(self.table) and self.table[token] != Piece() for token in tokens)
        return tuple(tokens) if known else ()

    @classmethod
    def load(cls, directory: Path, config: ModelConfig) -> "PieceTable":
        """From ``tokenizer.json``. Raises WeightsError unless every token has a piece."""
        path = directory / "tokenizer.json"
        if not path.exists():
            raise WeightsError(f"{directory} holds no tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise WeightsError(f"{path} cannot be read: {error}") from None
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        table = []
        for token in range(config.vocab_size):
            text = tokenizer.id_to_token(token)
            if text is None and token != config.blank_token_id:
                raise WeightsError(f"{path} has no piece for token {token}")
            if text is None or token == config.blank_token_id:
                table.append(Piece())
            else:
                table.append(_piece(text, special=token in special))
        return cls(tuple(table), tokenizer)


def _piece(text: str, *, special: bool) -> Piece:
    if special and not _TAG.fullmatch(text):
        return Piece()
    if byte := _BYTE.fullmatch(text):
        return Piece(byte=bytes.fromhex(byte[1]))
    if text.startswith(_WORD_START):
        return Piece(text[1:].replace(_WORD_START, " "), starts_word=True)
    return Piece(text.replace(_WORD_START, " "))


class Token(NamedTuple):
    """A token that was emitted at encoder frame ``place`` of the segment."""

    token: int
    place: int
    confidence: float


@frozen
class _Draft:
    """A word being put together."""

    content: bytes
    text: str
    """The same, without half a character at its end."""
    first: int
    last: int
    confidences: tuple[float, ...]


@define
class Transcript:
    """The words of one segment that starts at stream sample ``start``."""

    pieces: PieceTable
    start: int
    committed: tuple[Word, ...] = ()
    language: str | None = None
    """ISO 639-1 code of the last language tag."""
    language_confidence: float = 0.0
    _tokens: list[Token] = field(factory=list)
    _done: list[Word] = field(factory=list)
    _draft: _Draft | None = None
    _delivered: int = 0
    """Of the words that are done, how many have been given as final."""
    _final: tuple[Word, ...] | None = None
    """Those, after the committed ones and without what these replace."""
    complete: bool = False
    """Whether the text ends with a sentence-final mark."""

    def extend(self, tokens: Sequence[Token]) -> None:
        """Append tokens, in the order they were emitted."""
        for token in tokens:
            self._tokens.append(token)
            self._add(token)
        if tokens:
            self.complete = self._ends_sentence()

    def go_back(self, frames: int, end: int) -> None:
        """The segment ends at stream sample ``end``, before what has been processed. What was
        emitted at encoder frame ``frames`` or later is taken back, but words that were delivered as
        final and lie before the end stay as delivered."""
        delivered = [word for word in self.words() if word.final and word.end <= end]
        self.committed, self._delivered, self._final = tuple(delivered), 0, None
        kept = self._tokens[: bisect_left(self._tokens, frames, key=lambda token: token.place)]
        self._tokens, self._done, self._draft = [], [], None
        self.complete = False
        self.language, self.language_confidence = None, 0.0
        self.extend(kept)

    def words(self, *, end: int | None = None) -> tuple[Word, ...]:
        """The committed words, then the segment's own that lie behind them. With ``end``, the
        segment is over: all are final and none reaches beyond that stream sample."""
        since = self.committed[-1].end if self.committed else self.start
        if self._final is None:
            self._final = self.committed
        if end is None and self._delivered < len(self._done):
            new = self._done[self._delivered :]
            self._final += tuple([word for word in new if word.start >= since])
            self._delivered = len(self._done)
        word = self._word(self._draft) if self._draft is not None else None
        if end is None:
            return self._final if word is None or word.start < since else (*self._final, word)
        rest = self._done[self._delivered :]
        if word is not None:
            rest.append(word)
        rest = [word for word in rest if word.start >= since]
        begin = self._final[-1].end if self._final else self.start
        return (*self._final, *_fit(rest, begin, end))

    @property
    def last_place(self) -> int:
        """Encoder frame of the last token, -1 before the first."""
        return self._tokens[-1].place if self._tokens else -1

    def end_of_turn_confidence(self, frames: int) -> float:
        """See below."""
        return float(end_of_turn_confidence(frames, self.last_place, self.complete))

    def _ends_sentence(self) -> bool:
        draft = self._draft.text if self._draft else ""
        visible = _TAG.sub("", draft) if "<" in draft else draft
        return ends_sentence(visible or (self._done[-1].text if self._done else ""))

    def _add(self, token: Token) -> None:
        piece = self.pieces.table[token.token]
        if not piece.text and not piece.byte and not piece.starts_word:
            return
        if piece.starts_word or self._draft is None:
            self._close_draft(token.place)
            self._draft = _Draft(b"", "", token.place, token.place, ())
        draft = self._draft
        content = draft.content + (piece.byte or piece.text.encode())
        text = content.decode("utf-8", errors="ignore")
        confidences = (*draft.confidences, token.confidence)
        self._draft = _Draft(content, text, draft.first, token.place, confidences)
        if "<" in text:
            tags = _TAG.findall(text)
            if len(tags) > len(_TAG.findall(draft.text)):
                self.language, self.language_confidence = tags[-1], token.confidence

    def _close_draft(self, next_place: int) -> None:
        """The next word begins at frame ``next_place``; the one before ends there at the latest."""
        if self._draft is None or (word := self._word(self._draft)) is None:
            return
        # Not ``evolve``, which takes twice as long as all the rest of this.
        begins = max(self.start + next_place * FRAME, word.start + 1)
        end = min(word.end, begins)
        self._done.append(Word(word.text, word.start, end, word.confidence, final=True))

    def _word(self, draft: _Draft) -> Word | None:
        text = draft.text
        if "<" in text:
            text = _OPEN_TAG.sub("", _TAG.sub("", text))
        text = text.strip()
        if not text:
            return None
        # Words emitted at one frame still begin one after the other.
        begins = self.start + draft.first * FRAME
        if self._done:
            begins = max(begins, self._done[-1].start + 1)
        confidence = sum(draft.confidences) / len(draft.confidences)
        return Word(text, begins, self.start + (draft.last + 1) * FRAME, confidence)


def end_of_turn_confidence(
    frames: ArrayLike, last_place: ArrayLike, complete: ArrayLike
) -> NDArray[np.float64]:
    """How sure it is that the speaker has finished, ``frames`` encoder frames into the segment; the
    last token was at ``last_place``, -1 for none, and ``complete`` says whether a sentence ends
    with it. Of one segment or of many.

    A sentence-final mark counts for most of it, blank frames since the last token for the
    rest. The constants are a guess: no recording has been measured with these weights yet."""
    blanks = np.maximum(0, np.subtract(frames, 1) - np.asarray(last_place))
    confidence = np.where(complete, 0.5, 0.0) + 0.5 * (blanks / (blanks + 4.0))
    found: NDArray[np.float64] = np.where(np.less(last_place, 0), 0.0, confidence)
    return found


def _fit(words: Sequence[Word], begin: int, end: int) -> list[Word]:
    """The same words, final, between two samples. The last encoder frame is centred up to 60 ms
    after the last sample, so the last words may have to move; none is left without a sample."""
    limit, fitted = end, []
    for word in reversed(words):
        last = min(word.end, limit)
        limit = min(word.start, last - 1)
        fitted.append(evolve(word, start=limit, end=last, final=True))
    placed = []
    for word in reversed(fitted):
        start = max(word.start, begin)
        begin = max(word.end, start + 1)
        placed.append(evolve(word, start=start, end=begin))
    return placed
