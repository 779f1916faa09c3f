"""What Whisper's work consists of, for ``engine.capacity``.

Counted over 129 s of the development clips, read and spontaneous English (tiny.en): on a stream on
which somebody speaks there are 1.33 decodes a second for words in the making, and 0.25 at pauses,
each about 5.7 seconds of audio with its padding and 4.5 passes of the decoder.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch

from ssasr.engine.capacity import MOST_STREAMS, TURNS, Unit, Workload
from ssasr.engine.smart_turn import WINDOW, SmartTurn
from ssasr.engine.vad import SileroVad
from ssasr.engine.whisper.alignment import FRAME
from ssasr.engine.whisper.partial_interval import TALKING, PartialInterval
from ssasr.engine.whisper.passes import Batch, Excerpt, Inputs, Passes
from ssasr.engine.whisper.segment import CHUNK
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

PARTIALS, PAUSES = 1.33, 0.25
"""Decodes a second, on the grid as it should be, and at pauses."""
SECONDS = 5.7
"""Of audio in a decode."""
PASSES = 4.5
"""Of the decoder in one."""
TOKENS = 12
"""In one of these."""
WIDEST = 4
"""Times that words in the making may come less often than they should at the streams that are
offered: with tiny.en every 2.3 s while somebody speaks."""
LISTENED = 4
"""Streams that the detector is timed with."""
_DECODE = {"encoder": SECONDS, "decoder": PASSES}


def workload(
    passes: Passes, vad: SileroVad, smart_turn: SmartTurn, workers: int, capacity: float
) -> Workload:
    """``workers`` threads decode side by side; none: the model thread does. ``capacity`` as
    ``PartialInterval`` takes it."""
    samples = (0.1 * np.sin(0.1 * np.arange(round(SECONDS * SAMPLE_RATE)))).astype(np.float32)
    excerpt = Excerpt(samples, min(len(samples) // FRAME, passes.frames))
    window = np.resize(samples, WINDOW)
    frames, state = (
        torch.zeros(LISTENED, CHUNK // VAD_FRAME, VAD_FRAME),
        vad.initial_state(LISTENED),
    )

    @torch.inference_mode()
    def encode() -> Batch:
        return passes.begin([excerpt], 2 * TOKENS)

    encoded = cache(encode)

    @torch.inference_mode()
    def read() -> object:
        return encoded().read([Inputs([1] * TOKENS, 1, 0)])

    @torch.inference_mode()
    def detect_speech() -> object:
        return vad.detect(frames, state)

    @torch.inference_mode()
    def estimate_end() -> object:
        return smart_turn.probability([window])

    return Workload(
        {
            "detector": Unit(detect_speech, LISTENED),
            "encoder": Unit(encode, excerpt.frames * FRAME / SAMPLE_RATE),
            "decoder": Unit(read),
            "end_of_turn": Unit(estimate_end),
        },
        max(1, workers),
        lambda streams: demand(streams, capacity),
        {"end_of_turn": 1.0, **_DECODE},
        _DECODE,
        widest_streams(capacity),
    )


def widest_streams(capacity: float) -> int:
    """Streams with words in the making as often as they should be, ``WIDEST`` times rarer."""
    streams = 1
    while streams < MOST_STREAMS and interval(streams + 1, capacity).factor <= WIDEST:
        streams += 1
    return streams


def demand(streams: int, capacity: float) -> Mapping[str, float]:
    """Units a second: chunks, seconds of audio, passes, ends of turns."""
    rare = interval(streams, capacity).factor
    decodes = TALKING * streams * (PARTIALS / rare + PAUSES)
    return {
        "detector": streams * SAMPLE_RATE / CHUNK,
        "encoder": decodes * SECONDS,
        "decoder": decodes * PASSES,
        "end_of_turn": streams * TURNS,
    }


def interval(streams: int, capacity: float) -> PartialInterval:
    """As it is with so many streams."""
    found = PartialInterval(capacity)
    found.note_speaking(round(TALKING * streams))
    return found
