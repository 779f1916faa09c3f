"""The arithmetic of gpu_streams.md: what a stream costs, and what a device's figures allow.

    python benchmarks/fastconformer_limits.py
    python benchmarks/fastconformer_limits.py --memory-gb 24 --bandwidth-tb 0.3 --tflops 121

Defaults are the data sheet of one H100 SXM (80 GB, 3.35 TB/s, 989 TFLOP/s bfloat16 dense). Nothing
is measured here.
"""

import argparse
import math

import torch
from random_fastconformer import model_config

from ssasr.engine.fastconformer.recognizer import make_layout
from ssasr.engine.fastconformer.transducer import Model

FRAMES_A_SECOND = 12.5


def flops_a_frame(config, left: int, chunk_frames: int) -> float:
    """Floating-point operations of one encoder frame, decoding as recorded included."""
    encoder, dim = config.encoder, config.encoder.hidden_size
    layer = 4 * dim * encoder.intermediate_size  # two feed-forwards of two matrices
    layer += 3 * dim * dim + dim * dim + 2 * dim * dim + dim * dim  # q k v, out, pointwise
    layer += dim * encoder.conv_kernel_size
    # Scores and values of every key, and scores of every position.
    layer += dim * (2 * (left + chunk_frames) + left + 2 * chunk_frames)
    channels, bins = encoder.subsampling_conv_channels, encoder.num_mel_bins
    recomputed = (8 * chunk_frames + 7) / (8 * chunk_frames)
    stages = 9 * channels * 4 * (bins / 2) + channels * (channels + 9) * (2 * bins / 4 + bins / 8)
    subsampling = recomputed * stages + channels * encoder.subsampled_bins * dim
    hidden = config.decoder_hidden_size
    rounds = 1 + (chunk_frames + 3 - 1)  # as recorded; every round looks at every frame
    joint = rounds * hidden * config.vocab_size
    prediction = rounds / chunk_frames * hidden * hidden * (8 * config.num_decoder_layers + 1)
    return 2 * (encoder.num_hidden_layers * layer + subsampling + joint + prediction)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabulary", type=int, default=1025)
    parser.add_argument("--memory-gb", type=float, default=80.0)
    parser.add_argument("--bandwidth-tb", type=float, default=3.35)
    parser.add_argument("--tflops", type=float, default=989.0)
    options = parser.parse_args()
    config = model_config("full", options.vocabulary)
    with torch.device("meta"):
        model = Model(config)
    parameters = sum(p.numel() for p in model.parameters())
    weights = 2 * parameters
    print(f"parameters {parameters / 1e6:.0f} M, {weights / 1e9:.2f} GB in bfloat16")
    print("chunk  state/stream  traffic/chunk  GFLOP/chunk   streams by memory, bandwidth, compute")
    for chunk_frames in (1, 2, 4, 7, 14):
        layout = make_layout(model, 1, chunk_frames)
        state = layout.bytes_per_stream(torch.bfloat16)
        encoder = config.encoder
        frames = 2 * (layout.left + chunk_frames) + encoder.conv_context + chunk_frames
        # Gathering reads the past and writes it in order; attention reads it again.
        traffic = 3 * frames * encoder.num_hidden_layers * encoder.hidden_size * 2
        flops = chunk_frames * flops_a_frame(config, layout.left, chunk_frames)
        chunk_s = chunk_frames / FRAMES_A_SECOND
        # Half a chunk's time for a step of everyone: the criterion of gpu_streams.py, at worst.
        half = chunk_s / 2
        by_memory = (options.memory_gb * 1e9 - weights - 6e9) / state
        by_bandwidth = (half * options.bandwidth_tb * 1e12 - weights) / traffic
        by_compute = half * options.tflops * 1e12 * 0.5 / flops
        bounds = [math.floor(bound) for bound in (by_memory, by_bandwidth, by_compute)]
        print(
            f"{80 * chunk_frames:5d}  {state / 1e6:9.2f} MB  {traffic / 1e6:10.2f} MB"
            f"  {flops / 1e9:11.2f}   {bounds[0]:7d} {bounds[1]:7d} {bounds[2]:7d}"
        )


if __name__ == "__main__":
    main()
