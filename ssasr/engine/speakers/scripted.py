"""Who speaks when, without weights: the same audio always gives the same voices.

Where there is energy somebody speaks, and it is somebody else where the signal crosses zero at
quite another rate: a tone is one person and a tone two octaves higher another, which is what load
and fault tests need. A sample lost or moved changes where runs begin.
"""

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from ssasr.engine.speakers.windows import Window
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME
from ssasr.protocol.voices import Run, Voice, Voices

SPEECH_LEVEL = 0.01
"""Root mean square above which a frame is speech."""
PEOPLE = 8
LEAST_CLEAN = SAMPLE_RATE // 2


@frozen
class ScriptedDiarizer:
    """Implements ``Diarizer``."""

    hop: int = 2 * SAMPLE_RATE

    def warm_up(self) -> None:
        pass

    def find_voices(self, windows: Sequence[Window]) -> list[Voices]:
        return [_voices_in(window) for window in windows]


def _voices_in(window: Window) -> Voices:
    start = window.end - len(window.audio)
    frames = window.audio[: len(window.audio) // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME)
    loud = np.sqrt((frames**2).mean(axis=1)) > SPEECH_LEVEL if len(frames) else np.zeros(0, bool)
    crossings = (np.diff(np.signbit(frames), axis=1) != 0).sum(axis=1)
    person = np.rint(np.log2(np.maximum(crossings, 1)) / 2).astype(int) % PEOPLE
    voices = []
    for each in range(PEOPLE):
        spoken = np.flatnonzero(loud & (person == each))
        runs = tuple(
            Run(start + int(run[0]) * VAD_FRAME, start + (int(run[-1]) + 1) * VAD_FRAME)
            for run in np.split(spoken, np.flatnonzero(np.diff(spoken) > 1) + 1)
            if len(run)
        )
        if runs:
            clean = len(spoken) * VAD_FRAME
            vector = np.eye(PEOPLE, dtype="<f2")[each].tobytes() if clean >= LEAST_CLEAN else b""
            voices.append(Voice(runs, clean if vector else 0, vector, each))
    return Voices(start, window.end, tuple(voices))
