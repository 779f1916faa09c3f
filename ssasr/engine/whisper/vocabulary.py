"""Which tokens a decoder may choose, and what stands before the text."""

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.tokenizers import WhisperTokenizer


@frozen
class Vocabulary:
    """Which tokens may be chosen when; additive masks of (vocabulary,)."""

    tokenizer: WhisperTokenizer
    mask: Tensor
    first_mask: Tensor
    multilingual: bool
    languages: tuple[str, ...]

    @classmethod
    def build(
        cls,
        tokenizer: WhisperTokenizer,
        size: int,
        suppressed: Sequence[int],
        suppressed_first: Sequence[int],
    ) -> "Vocabulary":
        """English-only vocabularies are one token smaller than multilingual ones."""
        mask = torch.zeros(size)
        mask[list(suppressed)] = -torch.inf
        # Special tokens other than the end are structure, never text; time stamps are not wanted.
        mask[tokenizer.end + 1 :] = -torch.inf
        first = mask.clone()
        first[list(suppressed_first)] = -torch.inf
        multilingual = size >= 51_865
        languages = tuple(tokenizer.languages) if multilingual else ("en",)
        return cls(tokenizer, mask, first, multilingual, languages)

    def prefix(self, language: str, *, translate: bool = False) -> list[int]:
        tokens = self.tokenizer
        if not self.multilingual:
            return [tokens.start, tokens.no_timestamps]
        return [
            tokens.start,
            tokens.languages[language],
            tokens.translate if translate else tokens.transcribe,
            tokens.no_timestamps,
        ]
