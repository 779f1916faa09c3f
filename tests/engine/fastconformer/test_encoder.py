"""The encoder: chunk by chunk it gives what the reference gives at once and with its own caches."""

import pytest
import torch

from ssasr.engine.fastconformer.checkpoint import load_model, translate
from ssasr.engine.fastconformer.config import parse_config
from ssasr.engine.fastconformer.encoder import Span, WholePast, encoder_frames
from ssasr.engine.fastconformer.transducer import Model
from tests.engine.fastconformer import reference

TOLERANCE = 1e-4


@torch.no_grad()
def frames_in_chunks(model, mel, chunk_frames, prompt=0, mel_frames=None):
    """Projected frames of one utterance (mel frames, bins), encoded chunk by chunk. Without
    ``mel_frames`` only the chunks that the mel frames complete, as if the stream went on."""
    config = model.config.encoder
    cache = WholePast(config.left_frames(chunk_frames), config.conv_context)
    relative = model.encoder.relative_keys(chunk_frames)
    going_on = mel_frames is None
    total = (len(mel) + 7) // 8 if going_on else int(encoder_frames(torch.tensor(mel_frames)))
    chunks = total // chunk_frames if going_on else -(-total // chunk_frames)
    # Junk around the utterance: nothing of it may be looked at.
    padded = torch.full((14 + len(mel) + 8 * chunk_frames + 8, mel.shape[1]), 3.0)
    padded[14 : 14 + len(mel)] = mel
    found = []
    for first in range(0, chunks * chunk_frames, chunk_frames):
        window = padded[8 * first : 8 * (first + chunk_frames) + 7][None]
        span = Span(torch.tensor([first]), torch.tensor([2**40 if going_on else mel_frames]))
        frames = model.encoder(window, span, cache, relative)
        found.append(model.project(frames, torch.tensor([prompt])))
    return torch.cat(found, dim=1)[0, :total]


def ours(saved):
    return load_model(saved[1], torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("lookahead", reference.LOOKAHEADS)
@pytest.mark.parametrize("samples", [500, 8_000, 60_123])
def test_equals_the_reference_offline(english, lookahead, samples):
    audio = reference.utterance(samples, samples)
    mel, _ = reference.features(english[0], [audio])
    mel_frames = samples // 160
    found = frames_in_chunks(
        ours(english), mel[0, :mel_frames], lookahead + 1, mel_frames=mel_frames
    )
    expected = reference.offline_frames(english[0], audio, lookahead)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("lookahead", reference.LOOKAHEADS)
def test_equals_the_reference_streaming(english, lookahead):
    # Longer than the left context of 30 frames, so that the reference's cache slides too.
    audio = reference.utterance(lookahead, 75_000)
    mel, _ = reference.features(english[0], [audio])
    found = frames_in_chunks(ours(english), mel[0, : len(audio) // 160], lookahead + 1)
    expected = reference.streamed_frames(english[0], audio, lookahead)
    assert len(expected) > 40
    torch.testing.assert_close(found[: len(expected)], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("prompt", [0, 9, 101])
def test_equals_the_reference_with_language_prompts(multilingual, prompt):
    audio = reference.utterance(prompt, 40_000)
    mel, _ = reference.features(multilingual[0], [audio])
    found = frames_in_chunks(ours(multilingual), mel[0, :250], 4, prompt, mel_frames=250)
    expected = reference.offline_frames(multilingual[0], audio, 3, prompt)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(300)  # a loaded machine fills 5 GB with random numbers slowly
def test_full_size_equals_the_reference():
    """The published sizes, all 24 layers, random weights: 0.6 B parameters."""
    torch.set_num_threads(2)
    sizes = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "intermediate_size": 4096,
        "subsampling_conv_channels": 256,
        "num_mel_bins": 128,
        "attention_bias": False,
        "convolution_bias": False,
        "scale_input": False,
    }
    theirs = reference.small_model(fast=True, sliding_window=71, **sizes)
    audio = reference.utterance(1, 20_000)
    expected = reference.offline_frames(theirs, audio, 6)
    config = parse_config(theirs.config.to_dict())
    with torch.device("meta"):
        model = Model(config)
    model.load_state_dict(translate(theirs.state_dict(), model, config), assign=True)
    mel, _ = reference.features(theirs, [audio])
    found = frames_in_chunks(model, mel[0, :125], 7, mel_frames=125)
    assert sum(p.numel() for p in model.parameters()) > 590e6
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("chunk_frames", [1, 2, 7])
def test_a_chunk_knows_nothing_of_later_audio(english, chunk_frames):
    model = ours(english)
    mel = torch.randn(240, 80, generator=torch.Generator().manual_seed(0))
    other = mel.clone()
    chunks = 3
    # The last mel frame that the chunks may look at is the centre of their last encoder frame.
    last = 8 * (chunks * chunk_frames - 1)
    other[last + 1 :] += 1.0
    kept = slice(0, chunks * chunk_frames)
    first = frames_in_chunks(model, mel, chunk_frames)
    second = frames_in_chunks(model, other, chunk_frames)
    assert torch.equal(first[kept], second[kept])
    assert not torch.equal(first[chunks * chunk_frames], second[chunks * chunk_frames])
    other[last] += 1.0
    assert not torch.equal(first[kept], frames_in_chunks(model, other, chunk_frames)[kept])


def test_rows_of_any_age_share_a_batch(english):
    """A young row, an old one and one that ends, together and alone."""
    model = ours(english)
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(3, 8 * 2 + 7, 80, generator=generator)
    span = Span(torch.tensor([0, 40, 6]), torch.tensor([2**40, 2**40, 50]))
    past = torch.randn(3, 40, 96, generator=generator)

    def encode(rows):
        cache = WholePast(30, 8)
        for layer in range(3):
            cache.attention(layer, past[rows])
            cache.convolution(layer, past[rows, :8, :48])
        picked = Span(span.first[rows], span.mel_frames[rows])
        return model.encoder(mel[rows], picked, cache, model.encoder.relative_keys(2))

    with torch.no_grad():
        together = encode([0, 1, 2])
        for row in range(3):
            torch.testing.assert_close(encode([row])[0], together[row], rtol=0, atol=1e-5)
