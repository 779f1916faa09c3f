"""The reference implementation (transformers) with the same weights, at its best.

Its caches need all rows of a batch to have started together, so it cannot serve real streams; this
is what it would carry if they had. Features are given, there is no speech detector and no clock:
the time of a chunk is that of its streaming ``generate`` over several chunks, divided. ``encoder``
is its encoder alone.
"""

import time
import warnings
from collections.abc import Callable, Iterator

import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.fastconformer.transducer import Model


@frozen
class ReferenceFigures:
    """The largest batches whose chunk takes less than half a chunk's time."""

    streams: int
    chunk_ms: float
    encoder_streams: int
    encoder_chunk_ms: float


def measure_reference(model: Model, chunk_frames: int, most: int, chunks: int) -> ReferenceFigures:
    """Batches doubled until one is too slow, does not fit, or is ``most``."""
    reference = to_reference(model)
    budget = chunk_frames * 0.08 / 2
    whole = _largest(lambda rows: _generate(reference, rows, chunk_frames, chunks), budget, most)
    encoder = _largest(lambda rows: _encode(reference, rows, chunk_frames, chunks), budget, most)
    return ReferenceFigures(*whole, *encoder)


def _largest(seconds: Callable[[int], float], budget: float, most: int) -> tuple[int, float]:
    rows, good, taken = 1, 0, float("inf")
    while rows <= most:
        try:
            seconds(rows)  # once to warm up
            found = seconds(rows)
        except torch.cuda.OutOfMemoryError:
            break
        if good == 0:
            taken = found
        if found >= budget:
            break
        good, taken = rows, found
        rows *= 2
    return good, round(1000 * taken, 3)


def _mel(reference, rows: int, chunk_frames: int, chunks: int) -> Iterator[Tensor]:
    bins = reference.config.encoder_config.num_mel_bins
    for number in range(chunks):
        frames = 8 * chunk_frames if number else 8 * chunk_frames - 7
        yield torch.randn(rows, frames, bins, device=reference.device) * 2.0 - 6.0


@torch.no_grad()
def _generate(reference, rows: int, chunk_frames: int, chunks: int) -> float:
    """Seconds a chunk."""
    _wait(reference.device)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.generate(
            input_features=_mel(reference, rows, chunk_frames, chunks),
            num_lookahead_tokens=chunk_frames - 1,
        )
    _wait(reference.device)
    return (time.perf_counter() - begin) / chunks


@torch.no_grad()
def _encode(reference, rows: int, chunk_frames: int, chunks: int) -> float:
    """Seconds a chunk, encoder alone."""
    attention = convolution = None
    pieces = [piece.to(reference.dtype) for piece in _mel(reference, rows, chunk_frames, chunks)]
    _wait(reference.device)
    begin = time.perf_counter()
    for piece in pieces:
        found = reference.get_audio_features(
            piece,
            past_key_values=attention,
            padding_cache=convolution,
            num_lookahead_tokens=chunk_frames - 1,
            use_cache=True,
        )
        attention, convolution = found.past_key_values, found.padding_cache
    _wait(reference.device)
    return (time.perf_counter() - begin) / chunks


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_reference(model: Model):
    """The same weights in the reference's modules."""
    from transformers import (
        NemotronAsrStreamingConfig,
        NemotronAsrStreamingEncoderConfig,
        NemotronAsrStreamingForRNNT,
    )

    ours, encoder = model.config, model.config.encoder
    weight = model.encoder_projector.weight
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("num_mel_bins", "sliding_window", "conv_kernel_size", "subsampling_conv_channels")
    names += ("attention_bias", "convolution_bias")
    config = NemotronAsrStreamingConfig(
        encoder_config=NemotronAsrStreamingEncoderConfig(
            **{name: getattr(encoder, name) for name in names}
        ),
        vocab_size=ours.vocab_size,
        blank_token_id=ours.blank_token_id,
        decoder_hidden_size=ours.decoder_hidden_size,
        num_decoder_layers=ours.num_decoder_layers,
    )
    with torch.device(weight.device):
        reference = NemotronAsrStreamingForRNNT(config).eval().to(weight.dtype)
    reference.generation_config.decoder_start_token_id = ours.blank_token_id
    state = {}
    for name, tensor in model.state_dict().items():
        if ".qkv_proj." in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("qkv_proj", f"{letter}_proj")] = part
        else:
            wide = "conv.pointwise_conv" in name and tensor.dim() == 2
            state[name] = tensor[:, :, None] if wide else tensor
    reference.load_state_dict(state, strict=True)
    return reference
