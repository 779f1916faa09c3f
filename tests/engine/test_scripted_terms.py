"""The scripted recogniser's key terms: an effect that the gateway's side can be tested with."""

import numpy as np
from attrs import evolve

from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.scripted import CHUNK, ScriptedRecognizer
from ssasr.protocol.recognition import StreamOptions

OPTIONS = StreamOptions(keyterms=("Kubernetes", "drip coffee"))
AUDIO = (0.1 * np.random.default_rng(3).standard_normal(20 * 10 * CHUNK)).astype(np.float32)


def said(options, later=None, pieces=1):
    """``later``: options from the middle on."""
    recognizer = ScriptedRecognizer()
    state = recognizer.new_state(options, SegmentStart(0))
    middle = len(AUDIO) // 2
    for half in (AUDIO[:middle], AUDIO[middle:]):
        for part in np.split(half, pieces):
            recognizer.step([Work(state, part)])
        recognizer.configure(state, later or options)
    last = recognizer.step([Work(state, AUDIO[:0], len(AUDIO))])[0].results[-1]
    return [word.text for word in last.words]


def test_some_words_are_terms_whatever_the_pieces():
    plain, terms = said(StreamOptions()), said(OPTIONS)
    assert terms == said(OPTIONS, pieces=10)
    changed = [after for before, after in zip(plain, terms, strict=True) if before != after]
    assert set(changed) == {"Kubernetes", "drip-coffee"}
    assert 0.1 < len(changed) / len(plain) < 0.4


def test_a_new_list_holds_from_where_it_came():
    plain, terms = said(StreamOptions()), said(OPTIONS)
    none = evolve(OPTIONS, keyterms=())
    middle = len(plain) // 2
    assert said(OPTIONS, none) == terms[: middle + 1] + plain[middle + 1 :]
