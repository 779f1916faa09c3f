"""Words beside the speech detector: where they lie, and what was said after the last of them.

The alignment gives each word a place, but a pause to one of the words beside it. Pure.
"""

from collections.abc import Sequence

from attrs import evolve

from ssasr.engine.whisper.hypothesis_alignment import Spoken
from ssasr.engine.whisper.speech_buffer import SpeechBuffer
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

LEAD = 8 * VAD_FRAME
"""Audio kept before speech begins: detection lags behind soft beginnings."""
LEFT_OUT = SAMPLE_RATE
"""Speech after the last word, and after a pause, that is more than a decoder is late by."""
UNSAID = SAMPLE_RATE * 6 // 10
"""Speech beside a pause that is too much to belong to the word on its other side."""
LETTERS = 12
"""People say so many in a second."""
LENGTHENED = SAMPLE_RATE * 3 // 10
"""How much longer the last word is."""


def in_speech(words: Sequence[Spoken], floor: int, speech_buffer: SpeechBuffer) -> list[Spoken]:
    """Word borders moved out of silence, kept in order and after ``floor``: nobody pauses within a
    word."""
    placed = []
    for spoken in words:
        begin = max(spoken.word.start, floor)
        begin, end = speech_buffer.longest_stretch(begin, max(spoken.word.end, begin + 1))
        floor = end
        placed.append(evolve(spoken, word=evolve(spoken.word, start=begin, end=end)))
    return placed


def left_out(words: Sequence[Spoken], end: int, speech_buffer: SpeechBuffer) -> int | None:
    """Where what the words leave out of the audio before ``end`` begins, if it is much."""
    if not words:
        return None
    last = in_speech(words[-1:], 0, speech_buffer)[0].word.end
    after_pause = [one for one in speech_buffer.stretches(last, end) if one[0] > last]
    if sum(until - begin for begin, until in after_pause) < LEFT_OUT:
        return None
    return max(last, after_pause[0][0] - LEAD)


def unsaid(
    words: Sequence[Spoken], begin: int, end: int, speech_buffer: SpeechBuffer
) -> int | None:
    """Where what the words leave out of the audio between ``begin`` and ``end`` begins, though the
    alignment gives it to the last word: nobody pauses within one, or takes long for a short one."""
    if not words:
        return None
    last = words[-1].word
    before_it = in_speech(words[-2:-1], 0, speech_buffer)
    said_until = before_it[0].word.end if before_it else begin
    spans = speech_buffer.stretches(begin, end)
    pauses = [one for one in range(1, len(spans)) if spans[one][0] >= said_until]
    if not pauses:
        return None
    pause, goes_on = spans[pauses[0] - 1][1], spans[pauses[0]][0]
    before = max(0, pause - last.start)
    after = sum(until - start for start, until in spans[pauses[0] :])
    usual = LENGTHENED + _letters(last.text) * SAMPLE_RATE // LETTERS
    if min(before, after) < UNSAID and before + after - usual < UNSAID:
        return None
    return max(pause, goes_on - LEAD)


def ended_by(spoken: Spoken, at: int) -> Spoken:
    """The same word, over by then."""
    word = spoken.word
    return evolve(spoken, word=evolve(word, start=min(word.start, at), end=min(word.end, at)))


def _letters(text: str) -> int:
    """A digit is a word of four."""
    return sum(4 if each.isdigit() else each.isalpha() for each in text)
