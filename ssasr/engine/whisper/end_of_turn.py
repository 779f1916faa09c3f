"""How likely it is that a speaker who pauses has finished: by the sound, the text, and the silence.

A logistic regression over the pauses of read, spontaneous and telephone English, each seen at every
tenth of a second that it lasted: true are those at the end of a recording and those where an
offline transcript ends a sentence. Fitted and judged by speaker, five folds in six shuffles
(``benchmarks/turn_ends.py``). The silence says most. A full stop alone says little, since the
decoder closes most texts with one; how sure it is of it says more; and the sound a little: in read
speech every clause sounds finished.
"""

from math import exp, log

SOUND = 0.11
"""For each unit of the log-odds of Smart Turn's probability, which is cut at ``LIKELIEST``."""
LIKELIEST = 0.99
CLOSING = 0.81
"""For each unit of the log probability of the mark that ends the text as a sentence."""
OPEN = -2.0
"""What counts as that where no mark does, and at the least."""
SILENCE = 3.54
"""For each second of silence."""
CONSTANT = -2.75


def evidence(sound: float, closing: float | None) -> float:
    """Log-odds that he has finished, but for the silence. ``sound``: Smart Turn's probability;
    ``closing``: log probability of the mark that ends the text as a sentence, if one does."""
    likely = min(max(sound, 1 - LIKELIEST), LIKELIEST)
    text = OPEN if closing is None else max(closing, OPEN)
    return CONSTANT + SOUND * log(likely / (1 - likely)) + CLOSING * text


def likelihood(evidence: float, silence: float) -> float:
    """After so many seconds of silence."""
    return 1 / (1 + exp(-evidence - SILENCE * silence))
