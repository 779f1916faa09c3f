"""What a Whisper checkpoint says beside its weights: tokens never chosen, heads that align.

CTranslate2 directories have it in ``config.json``, Hugging Face's in ``generation_config.json``.
OpenAI's ``.pt`` files have neither: the tokens follow from the vocabulary, the heads from the
model's size.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.whisper.model import Dims, Heads
from ssasr.errors import WeightsError

HEADS_DELAY: Mapping[Heads, int] = {
    # tiny.en
    ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)): 5,
    # base
    ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)): -3,
}
"""Frames of 20 ms by which the published alignment heads of a model find words too late. The heads
attend to what tells a word, not to where it begins; how far the two are apart differs from model to
model, little from word to word. Measured on synthetic speech, where the truth is known
(``benchmarks/archive/word_times.md``); models that were not measured are taken as they are."""


@frozen
class Settings:
    suppressed: tuple[int, ...]
    """Tokens that are never chosen: marks that no speech sounds like, and structure."""
    suppressed_first: tuple[int, ...]
    """Tokens that do not begin a text: a blank, the end."""
    alignment_heads: Heads
    heads_delay: int
    """Frames by which these heads find words too late."""


def read_settings(directory: Path, dims: Dims, tokenizer: WhisperTokenizer) -> Settings:
    """From the directory's files, or from the vocabulary and the sizes. Raises WeightsError."""
    generation = _json(directory / "generation_config.json")
    config = _json(directory / "config.json")
    suppressed = generation.get("suppress_tokens") or config.get("suppress_ids")
    first = generation.get("begin_suppress_tokens") or config.get("suppress_ids_begin")
    heads = generation.get("alignment_heads") or config.get("alignment_heads")
    if heads is None:
        heads = _upper_half(dims)
    checked = tuple((int(layer), int(head)) for layer, head in heads)
    for layer, head in checked:
        if not (0 <= layer < dims.text_layers and 0 <= head < dims.text_heads):
            raise WeightsError(f"alignment head ({layer}, {head}) is not in the model")
    return Settings(
        tuple(suppressed) if suppressed else unspoken_tokens(tokenizer),
        tuple(first) if first else (*tokenizer.encode(" "), tokenizer.end),
        checked,
        HEADS_DELAY.get(checked, 0),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    return content if isinstance(content, dict) else {}


def _upper_half(dims: Dims) -> Heads:
    """Every head of the later layers: less sharp than the published choice, but always there."""
    return tuple(
        (layer, head)
        for layer in range(dims.text_layers // 2, dims.text_layers)
        for head in range(dims.text_heads)
    )


def unspoken_tokens(tokenizer: WhisperTokenizer) -> tuple[int, ...]:
    """Brackets, music notes, speaker dashes and the like, with and without a space before them,
    wherever they are one token; Whisper's transcripts use them for what is not speech."""
    marks = list('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
    marks += [
        "<<",
        ">>",
        "<<<",
        ">>>",
        "--",
        "---",
        "-(",
        "-[",
        "('",
        '("',
        "((",
        "))",
        "(((",
        ")))",
    ]
    marks += ["[[", "]]", "{{", "}}", "♪♪", "♪♪♪"]
    found = {tokenizer.encode(" -")[0], tokenizer.encode(" '")[0]}
    for mark in marks:
        for text in (mark, " " + mark):
            tokens = tokenizer.encode(text)
            if len(tokens) == 1:
                found.add(tokens[0])
    for note in "♩♪♫♬♭♮♯":
        # Several tokens each, all of which begin alike: without the first none is written.
        for text in (note, " " + note):
            found.add(tokenizer.encode(text)[0])
    return tuple(sorted(found))
