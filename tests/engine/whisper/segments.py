"""Segments whose audio is speech and silence by decree, and hypotheses written down by hand."""

import numpy as np

from ssasr.engine.whisper.hypothesis_alignment import DecodedWord
from ssasr.engine.whisper.segment import CHUNK, Kind, Segment
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions, Word

SPEECH, SILENCE = 0.9, 0.01


def new_segment(committed=(), start=0, languages=(), tentative=False, mode=None, **more):
    options = StreamOptions(languages, tentative=tentative, mode=mode)
    return Segment(options, start, list(committed), **more)


def receive(segment, seconds, probability):
    """Whole chunks, as many as fit."""
    chunks = round(seconds * SAMPLE_RATE / CHUNK)
    segment.speech_buffer.receive(np.zeros(chunks * CHUNK, np.float32), [probability] * 3 * chunks)


def advance(segment, decode=lambda due: [], final_at=None, interval=1):
    """On to the end of what was received: (the decodes on the way, the answers)."""
    dues, answers = [], []
    while True:
        answers += segment.advance(final_at, interval)
        if segment.end_of_turn_due:
            segment.set_evidence(0.5)
        elif segment.due is not None:
            dues.append(segment.due)
            segment.apply(decode(segment.due), reliable=True)
        else:
            return dues, answers


def feed(segment, seconds, probability, **more):
    receive(segment, seconds, probability)
    return advance(segment, **more)[0]


def say(*words, unsure=()):
    """(text, start, end) in seconds -> a hypothesis, not sure of some of its texts."""
    return [
        DecodedWord(
            Word(
                text,
                int(begin * SAMPLE_RATE),
                int(end * SAMPLE_RATE),
                0.4 if text in unsure else 0.9,
            ),
            (number,),
        )
        for number, (text, begin, end) in enumerate(words)
    ]


def asking(segment, answer, said=lambda due: []):
    """Decodes that find the language ``answer(due)``; what was asked for so far, (kind, end)."""
    asked = []

    def decode(due):
        if due.kind is Kind.LANGUAGE or not segment.language.settled:
            segment.detected(*answer(due))
            if due.kind is not Kind.PARTIAL:
                asked.append((due.kind, due.end))
        return said(due)

    return asked, decode
