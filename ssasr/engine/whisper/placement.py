"""Words beside the speech detector: where they lie, and what was said after the last of them.

The alignment gives each word a place, but a pause to one of the words beside it. Pure.
"""

from collections.abc import Sequence

from attrs import evolve

from ssasr.engine.whisper.hypothesis_alignment import DecodedWord
from ssasr.engine.whisper.speech_buffer import SpeechBuffer
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

LEAD = 8 * VAD_FRAME
"""Audio kept before speech begins: detection lags behind soft beginnings."""
LEFT_OUT = SAMPLE_RATE
"""Speech after the last word, and after a pause, that is more than a decoder is late by."""


def in_speech(
    words: Sequence[DecodedWord], floor: int, speech_buffer: SpeechBuffer
) -> list[DecodedWord]:
    """Word borders moved out of silence, kept in order and after ``floor``: nobody pauses within a
    word."""
    placed = []
    for spoken in words:
        begin = max(spoken.word.start, floor)
        begin, end = speech_buffer.longest_stretch(begin, max(spoken.word.end, begin + 1))
        floor = end
        placed.append(evolve(spoken, word=evolve(spoken.word, start=begin, end=end)))
    return placed


def left_out(words: Sequence[DecodedWord], end: int, speech_buffer: SpeechBuffer) -> int | None:
    """Where what the words leave out of the audio before ``end`` begins, if it is much."""
    if not words:
        return None
    last = in_speech(words[-1:], 0, speech_buffer)[0].word.end
    after_pause = [one for one in speech_buffer.stretches(last, end) if one[0] > last]
    if sum(until - begin for begin, until in after_pause) < LEFT_OUT:
        return None
    return max(last, after_pause[0][0] - LEAD)
