"""Models of names, whatever kind lies in a folder: a spaCy pipeline, of which only the entity
recogniser is loaded, a GLiNER model, or a token classifier for transformers, such as OpenAI's
privacy filter. They are data: weights are read as safetensors or by spaCy, nothing is unpickled,
and no code of a model's own is run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssasr.errors import WeightsError
from ssasr.gateway.redaction.lexicon import listed
from ssasr.gateway.redaction.names import LABELS, NOT_NAMES, Entity, NameModel
from ssasr.gateway.redaction.policies import POLICIES, THRESHOLD
from ssasr.gateway.redaction.spoken import TENS, UNITS

UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
ASKED_OF_GLINER = tuple(policy.replace("_", " ") for policy in listed("asked of a model"))


def load(directory: Path) -> NameModel:
    """Raises WeightsError for a folder that holds none of these, ImportError where a package that
    its kind needs is not installed, and what the packages raise for a damaged one."""
    if (directory / "config.cfg").is_file():
        return SpacyNames(directory)
    if not (directory / "model.safetensors").is_file():
        raise WeightsError("the folder holds no spaCy pipeline and no model.safetensors")
    if (directory / "gliner_config.json").is_file():
        return GlinerNames(directory)
    return TokenClassifier(directory)


class Joined:
    """Words with spaces between, and which word each character belongs to."""

    def __init__(self, words: Sequence[str]) -> None:
        self.text = " ".join(words)
        self._word_at = [n for n, word in enumerate(words) for _ in range(len(word) + 1)]

    def entity(self, label: str, start: int, end: int, score: float = 1.0) -> Entity:
        """Of the characters ``start`` to ``end`` (exclusive)."""
        return Entity(label, self._word_at[start], self._word_at[end - 1], score)


NO_NAME = NOT_NAMES | UNITS.keys() | TENS.keys()


def _writes_no_name(words: Sequence[str]) -> bool:
    """Whether this is written with capitals, and none of them can begin a name."""
    capitals = [word.strip(".,;:?!…'").lower() for word in words if word != word.lower()]
    return bool(capitals) and all(word in NO_NAME for word in capitals)


class SpacyNames:
    """Labels of OntoNotes 5."""

    policies = frozenset(
        policy for label, found in LABELS.items() if label.isupper() for policy, _ in found
    ) | {"organization_medical_facility"}

    def __init__(self, directory: Path) -> None:
        import spacy

        self._pipeline = spacy.load(directory, exclude=list(UNUSED))

    def __call__(self, words: Sequence[str]) -> list[Entity]:
        if _writes_no_name(words):
            return []
        joined = Joined(words)
        found = self._pipeline(joined.text).ents
        return [joined.entity(each.label_, each.start_char, each.end_char) for each in found]


class GlinerNames:
    """Asked for the policies by their names, which such a model takes as any other label."""

    policies = POLICIES

    def __init__(self, directory: Path) -> None:
        from gliner import GLiNER  # type: ignore[import-not-found]  # optional, for this kind only

        self._model = GLiNER.from_pretrained(str(directory), local_files_only=True)
        self._model.eval()

    def __call__(self, words: Sequence[str]) -> list[Entity]:
        joined = Joined(words)
        found = self._model.predict_entities(
            joined.text, list(ASKED_OF_GLINER), threshold=THRESHOLD, flat_ner=False
        )
        return [
            joined.entity(f["label"].replace(" ", "_"), f["start"], f["end"], f["score"])
            for f in found
        ]


class TokenClassifier:
    """One label a token, with or without B-, I-, E- or S- before it."""

    policies = POLICIES

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

        here = {"local_files_only": True, "trust_remote_code": False}
        tokenizer: Any = AutoTokenizer.from_pretrained(directory, **here)
        model: Any = AutoModelForTokenClassification.from_pretrained(
            directory, use_safetensors=True, **here
        )
        self._label: Any = pipeline(
            "token-classification", model=model, tokenizer=tokenizer, ignore_labels=[]
        )

    def __call__(self, words: Sequence[str]) -> list[Entity]:
        joined = Joined(words)
        tokens = self._label(joined.text) if words else []
        return list(_merged(joined, ((t["entity"], t["start"], t["end"]) for t in tokens)))


def _merged(joined: Joined, tokens: Iterable[tuple[str, int, int]]) -> Iterable[Entity]:
    """Entities of tokens with the same label, one after the other."""
    label, first, last = "O", 0, 0
    for each, start, end in [*tokens, ("O", 0, 0)]:
        plain = each[2:] if each[:2] in {"B-", "I-", "E-", "S-"} else each
        if plain != label or each[:2] in {"B-", "S-"}:
            if label != "O":
                yield joined.entity(label, first, last)
            label, first = plain, start
        last = end
