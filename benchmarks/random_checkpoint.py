"""A checkpoint directory of random weights at the published size, to serve and to load-test with.

    python -m benchmarks.random_checkpoint --out DIR [--size full|small]

It says some four tokens a second of speech or noise, which mean nothing: what a server does with
it costs what the published model costs. 1.3 GB, half precision.
"""

import argparse
from pathlib import Path

import torch
from attrs import evolve
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.cpu_streams import VOCABULARY, load, ours, paced
from benchmarks.overfit_fastconformer import save
from ssasr.engine.fastconformer.transducer import Model

CHUNK_FRAMES = 7
"""With which the number of tokens is set."""


def tokenizer() -> Tokenizer:
    """Every other piece begins a word."""
    pieces = [("<unk>", 0.0)]
    pieces += [(f"{'▁' if n % 2 else ''}w{n}", -float(n)) for n in range(1, VOCABULARY - 1)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made


@torch.inference_mode()
def make(path: Path, size: str) -> Model:
    """The blank's score is set once for all, and a frame says one token at most."""
    model = paced(load(path, size))
    ours(model, 1, CHUNK_FRAMES)
    head = model.joint.head
    head.bias = torch.nn.Parameter(head.bias.clone(), requires_grad=False)
    head.bias[model.config.blank_token_id] += model.joint.bias
    model.config = evolve(model.config, max_symbols_per_step=1)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=("full", "small"), default="full")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    weights = given.out / "made.pt"
    save(make(weights, given.size), tokenizer(), given.out)
    weights.unlink()


if __name__ == "__main__":
    main()
