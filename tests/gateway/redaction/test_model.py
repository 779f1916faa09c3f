"""Models of names of each kind, by small ones that are made here: what a hub has is not needed."""

import sys
from types import SimpleNamespace

import pytest
import tokenizers
import torch
import transformers

from ssasr.errors import WeightsError
from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.model import SpacyNames, load
from ssasr.gateway.redaction.policies import policies_of
from ssasr.models import catalogue

LABELS = ["O", "B-private_person", "I-private_person", "S-private_address", "S-secret"]
KNOWN = {"[UNK]": "O", "Zeno": "B-private_person", "Qwerty": "I-private_person",
         "Elsewhere": "S-private_address", "swordfish": "S-secret"}  # fmt: skip


def classifier(folder):
    """Its label of a word is that of ``KNOWN``: no layers, and a word's embedding is its label."""
    count = len(KNOWN)
    vocabulary = {word: number for number, word in enumerate(KNOWN)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    configuration = transformers.BertConfig(
        vocab_size=count, hidden_size=count, num_hidden_layers=0, num_attention_heads=1,
        intermediate_size=8, id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )  # fmt: skip
    model = transformers.BertForTokenClassification(configuration)
    with torch.no_grad():
        for parameter in model.bert.embeddings.parameters():
            parameter.zero_()
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(count))
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        wanted = [[float(LABELS[row] == label) for label in KNOWN.values()] for row in range(count)]
        model.classifier.weight.copy_(torch.tensor(wanted))
        model.classifier.bias.zero_()
    model.save_pretrained(folder)


def hidden(detector, text, *policies):
    words = text.split()
    found = policies_of(detector.find(words), frozenset(policies), len(words))
    return " ".join("_" if policy else word for word, policy in zip(words, found, strict=True))


def test_a_token_classifier(tmp_path):
    classifier(tmp_path)
    detector = Detector(load(tmp_path))
    text = "so Zeno Qwerty, of Elsewhere, says swordfish."
    assert hidden(detector, text, "person_name") == "so _ _ of Elsewhere, says swordfish."
    assert hidden(detector, text, "location") == "so Zeno Qwerty, of _ says swordfish."
    assert hidden(detector, text, "password") == "so Zeno Qwerty, of Elsewhere, says _"


class Gliner:
    """The two functions of the package's class that are used; finds the word "Zeno"."""

    @classmethod
    def from_pretrained(cls, folder, *, local_files_only):
        assert local_files_only
        return cls()

    def eval(self):
        pass

    def predict_entities(self, text, labels, *, threshold, flat_ner):
        assert "person name" in labels
        start = text.find("Zeno")
        found = {"start": start, "end": start + 4, "label": "person name", "score": 0.9}
        return [found] if start >= 0 else []


def test_gliner(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gliner", SimpleNamespace(GLiNER=Gliner))
    for name in ("gliner_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    detector = Detector(load(tmp_path))
    assert hidden(detector, "so Zeno, hm", "person_name") == "so _ hm"
    assert hidden(detector, "so Zeno, hm", "location") == "so Zeno, hm"


def test_weights_that_would_have_to_be_unpickled(tmp_path):
    for name in ("gliner_config.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        load(tmp_path)


def test_the_catalogues_model_of_names():
    model = load(catalogue.resolve("en-core-web-sm", pull=False).directory)
    assert isinstance(model, SpacyNames)
    found = model(["Hello,", "Angela", "Merkel", "flew", "to", "Paris."])
    assert [(e.label, e.first, e.last) for e in found] == [("PERSON", 1, 2), ("GPE", 5, 5)]
    assert model(["Well,", "I", "will", "call", "in", "May."]) == [], "no name can be there"
