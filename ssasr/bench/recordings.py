"""What the bench's clients speak: recordings, cut into frames once and shared by all streams."""

import json
import os
from collections.abc import Iterable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr
from attrs import frozen
from numpy.typing import NDArray

from ssasr.bench.frames import BINARY, encode_frame
from ssasr.errors import SsasrError

RATE = 16_000
MESSAGE_SECONDS = 0.1
LEVEL_FRAME = 512
"""Samples over which the level is taken when speech is looked for: the voice detector's frame."""
SPEECH_LEVEL = 0.01
"""Root mean square above which there is sound, -40 dBFS: the scripted engine's own rule."""
SHORTEST_GAP = 0.25
"""Seconds. Shorter silences are inside a word or between two."""
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus"}

Samples = NDArray[np.float32]


class AudioError(SsasrError):
    """The audio or the manifest for the bench cannot be used."""


@frozen(eq=False)
class Recording:
    """``frames``: whole WebSocket frames, one a message; ``speech``: (start, end) of each stretch
    of sound, in seconds; ``reference``: what is said, None when that is not known."""

    name: str
    frames: Sequence[bytes]
    speech: Sequence[tuple[float, float]]
    reference: str | None


@frozen(eq=False)
class Track:
    """What one stream plays."""

    frames: Sequence[bytes]
    speech: Sequence[tuple[float, float]]
    """In seconds from the start of the stream."""
    reference: str | None
    message_seconds: float

    @property
    def seconds(self) -> float:
        return len(self.frames) * self.message_seconds


def sound_stretches(samples: Samples, rate: int) -> list[tuple[float, float]]:
    """Where there is sound, silences shorter than ``SHORTEST_GAP`` ignored."""
    size = LEVEL_FRAME * rate // RATE
    count = len(samples) // size
    levels = np.sqrt((samples[: count * size].reshape(count, size) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels > SPEECH_LEVEL)
    if not len(loud):
        return []
    gaps = np.flatnonzero(np.diff(loud) * size > SHORTEST_GAP * rate)
    starts = loud[np.concatenate([[0], gaps + 1])]
    ends = loud[np.concatenate([gaps, [len(loud) - 1]])] + 1
    seconds = size / rate
    return [(float(a * seconds), float(b * seconds)) for a, b in zip(starts, ends, strict=True)]


def make_recording(
    name: str,
    samples: Samples,
    *,
    gap: float,
    message_seconds: float = MESSAGE_SECONDS,
    reference: str | None = None,
    speech: Sequence[tuple[float, float]] | None = None,
) -> Recording:
    """``samples``: float32 (n,) at 16 kHz. At least ``gap`` seconds of silence follow, up to
    a whole message, so that recordings can be played one after the other."""
    size = round(message_seconds * RATE)
    length = -(-(len(samples) + round(gap * RATE)) // size) * size
    padded = np.zeros(length, np.float32)
    padded[: len(samples)] = samples
    pcm = np.clip(np.round(padded * 32_768), -32_768, 32_767).astype("<i2")
    frames = [encode_frame(BINARY, part.tobytes()) for part in pcm.reshape(-1, size)]
    found = sound_stretches(samples, RATE) if speech is None else speech
    return Recording(name, frames, found, reference)


def silence(messages: int, message_seconds: float) -> list[bytes]:
    frame = encode_frame(BINARY, bytes(2 * round(message_seconds * RATE)))
    return [frame] * messages


def make_track(
    recordings: Sequence[Recording], seconds: float, message_seconds: float, random: Random
) -> Track:
    """Whole recordings in random order until ``seconds`` are full, after a random silence that
    keeps streams which begin together apart."""
    frames = silence(random.randrange(20), message_seconds)
    speech: list[tuple[float, float]] = []
    references: list[str | None] = []
    queue: list[Recording] = []
    while not references or len(frames) * message_seconds < seconds:
        queue = queue or random.sample(recordings, len(recordings))
        recording = queue.pop()
        start = len(frames) * message_seconds
        frames += recording.frames
        speech += [(start + a, start + b) for a, b in recording.speech]
        references.append(recording.reference)
    known = [text for text in references if text is not None]
    reference = " ".join(known) if len(known) == len(references) else None
    return Track(frames, speech, reference, message_seconds)


# -- reading ---------------------------------------------------------------------------------------


def read_samples(path: Path) -> Samples:
    """float32 (n,) at 16 kHz, mono. Raises AudioError."""
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: not readable as audio ({error})") from None
    mono: Samples = sound.mean(axis=1)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE)


def bundled_recordings(gap: float, message_seconds: float) -> list[Recording]:
    """The recordings that come with the package."""
    folder = files("ssasr") / "data"
    made = []
    for line in (folder / "bench.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        with as_file(folder / entry["file"]) as path:
            made.append(_from_entry(entry, path, gap, message_seconds))
    return made


def read_recordings(
    audio: Path, transcripts: Path | None, gap: float, message_seconds: float
) -> list[Recording]:
    """``audio``: a file, or a folder with audio files in it; with ``transcripts``, the files that
    this manifest names: one JSON object a line, with ``file`` (relative to ``audio``'s folder or to
    the manifest's), ``reference``, and perhaps ``speech``, [start, end] pairs in seconds. Raises
    AudioError."""
    named = None
    if transcripts is not None:
        entries = _read_manifest(transcripts)
        named = str(entries[0]["file"]) if entries else None
        found = [(entry, _locate(str(entry["file"]), audio, transcripts)) for entry in entries]
        chosen = [(e, path) for e, path in found if path is not None]
    else:
        paths = [audio] if audio.is_file() else _audio_files(audio)
        chosen = [({"file": path.name}, path) for path in paths]
    if not chosen:
        raise AudioError(_nothing_found(audio, transcripts, named))
    return [_from_entry(entry, path, gap, message_seconds) for entry, path in chosen]


def _audio_files(folder: Path) -> Iterable[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("._")
    )


def _read_manifest(path: Path) -> list[dict[str, object]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: not a manifest ({error})") from None
    if not all(isinstance(entry, dict) and "file" in entry for entry in entries):
        raise AudioError(f"{path}: every line is an object that names a file")
    return entries


def _locate(name: str, audio: Path, manifest: Path) -> Path | None:
    """None: the manifest names more than ``audio`` holds. Links are not followed to say where a
    file is: a folder of links holds what they point to."""
    if audio.is_file():
        return audio if Path(name).name == audio.name else None
    if Path(name).is_absolute():  # whoever wrote it knew which file is meant
        return Path(name) if Path(name).is_file() else None
    for folder in (audio, manifest.parent):
        path = Path(os.path.abspath(folder / name))
        if path.is_file() and path.is_relative_to(os.path.abspath(audio)):
            return path
    return None


def _nothing_found(audio: Path, transcripts: Path | None, named: str | None) -> str:
    if named is None:
        return f"no recordings in {transcripts or audio}"
    return f"no recordings: {transcripts} names {named}, which is not in {audio}"


def _from_entry(
    entry: dict[str, object], path: Path, gap: float, message_seconds: float
) -> Recording:
    reference, speech = entry.get("reference"), entry.get("speech")
    return make_recording(
        path.name,
        read_samples(path),
        gap=gap,
        message_seconds=message_seconds,
        reference=reference if isinstance(reference, str) else None,
        speech=[(float(a), float(b)) for a, b in speech] if isinstance(speech, list) else None,
    )
