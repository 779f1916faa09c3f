"""Windows as an engine would say them, of a talk written down."""

import numpy as np

from ssasr.protocol.voices import CONTEXT, Run, Voice, Voices

SECOND = 16_000
RANDOM = np.random.default_rng(7)
PEOPLE = {name: RANDOM.normal(0, 1, 192) for name in "abcdefgh"}


def embedding(person, likeness=0.8):
    """Of one person, each time a little different: the cosine of two is about likeness²."""
    noise = RANDOM.normal(0, 1, 192)
    vector = PEOPLE[person] * likeness + noise * np.sqrt(1 - likeness**2)
    return (vector / np.linalg.norm(vector)).astype("<f2").tobytes()


def window(talk, end, length=CONTEXT, least=SECOND // 2, likeness=0.8):
    """``talk``: (person, start, end) in seconds. What is active up to ``end``, a sample."""
    start = max(0, end - length)
    runs, clean = {}, {}
    for person, first, last in talk:
        first, last = max(int(first * SECOND), start), min(int(last * SECOND), end)
        if first < last:
            runs.setdefault(person, []).append(Run(first, last))
            clean[person] = clean.get(person, 0) + last - first
    voices = tuple(
        Voice(
            tuple(each),
            min(clean[person], 3 * SECOND),
            embedding(person, likeness) if clean[person] >= least else b"",
            ord(person),
        )
        for person, each in runs.items()
    )
    return Voices(start, end, voices)


def windows(talk, end, hop=2.5, **options):
    """All of them up to ``end`` seconds, and one there."""
    ends = [int(hop * SECOND * i) for i in range(1, int(end / hop) + 1)]
    ends = [each for each in ends if each < end * SECOND] + [int(end * SECOND)]
    return [window(talk, each, **options) for each in ends]
