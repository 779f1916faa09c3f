"""How likely it is that a speaker who pauses has finished: by the sound, the text, and the silence.

A logistic regression over the pauses of read, spontaneous and telephone English, each seen at every
tenth of a second that it lasted: true are those at the end of a recording and those where an
offline transcript ends a sentence. Fitted on one half of the speakers; on the other too it ends
fewer turns too early than Smart Turn's probability times the silence did, at the same mean wait
(``benchmarks/turn_ends.py``). The silence says most, the full stop some, and the sound little:
in read speech every clause sounds finished. A full stop alone proves little either, since the
decoder closes most texts with one.

The constant is not the fitted one, which counts a turn that is cut no worse than one that is waited
for: it makes a sentence that ended and sounds so pass the default threshold (0.4) after one and a
half times the shortest pause.
"""

from math import exp, log

SOUND = 0.15
"""For each unit of the log-odds of Smart Turn's probability, which is cut at ``LIKELIEST``."""
LIKELIEST = 0.99
ENDED = 2.16
"""If the text ends a sentence."""
SILENCE = 1.244
"""For each pause (``StreamOptions.pause``) of silence, up to ``MOST_PAUSES``: it was fitted with
pauses of 0.4 s."""
MOST_PAUSES = 4.0
CONSTANT = -4.87


def evidence(sound: float, *, ended: bool) -> float:
    """Log-odds that he has finished, but for the silence. ``sound``: Smart Turn's probability."""
    likely = min(max(sound, 1 - LIKELIEST), LIKELIEST)
    return CONSTANT + SOUND * log(likely / (1 - likely)) + ENDED * ended


def likelihood(evidence: float, pauses: float) -> float:
    """After so many pauses of silence."""
    return 1 / (1 + exp(-evidence - SILENCE * min(pauses, MOST_PAUSES)))
