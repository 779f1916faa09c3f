"""The model's caches, lengths and batches, with random weights."""

import pytest
import torch

from ssasr.engine.whisper.model import STANDS_FOR, additive, length_mask
from tests.engine.whisper import tiny


def _close(a, b):
    assert torch.allclose(a, b, atol=1e-5), float((a - b).abs().max())


def _audio(batch, frames, seed=0):
    return torch.randn(batch, frames, 32, generator=torch.Generator().manual_seed(seed))


def _tokens(batch, n, seed=0):
    return torch.randint(0, 70, (batch, n), generator=torch.Generator().manual_seed(seed))


def _at(*places):
    return torch.tensor(places)


def test_encoder_row_alone_equals_row_in_a_padded_batch():
    model = tiny.model()
    mel = torch.randn(2, 20, 60, generator=torch.Generator().manual_seed(2))
    mel[0, :, 40:] = 0.0
    together = model.encoder(mel, torch.tensor([20, 30]))
    _close(together[:1, :20], model.encoder(mel[:1, :, :40]))
    _close(together[1:], model.encoder(mel[1:]))


def _mel(*frames):
    """Rows of so many vectors, silent from the middle on; nothing beyond a row's end."""
    mel = torch.randn(len(frames), 20, 2 * max(frames), generator=torch.Generator().manual_seed(2))
    for row, count in zip(mel, frames, strict=True):
        row[:, count : 2 * count] = -0.8
        row[:, 2 * count :] = 0.0
    return mel


def test_rows_with_silence_behind_them_do_not_depend_on_each_other():
    encoder, frames = tiny.model().encoder, (40, 60)
    mel = _mel(*frames)
    together, weights = encoder.with_silence(mel, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone, weight = encoder.with_silence(mel[row : row + 1, :, : 2 * count], None)
        _close(together[row, :count], alone[0, :count])
        beyond = alone.shape[1] - count
        _close(together[row, -beyond:], alone[0, count:])
        _close(weights[row, ..., -beyond:], weight[0, ..., count:])
        counted = weights[row].exp().sum()
        assert abs(float(counted) - encoder.dims.audio_context) <= STANDS_FOR


def test_a_few_vectors_stand_for_all_the_silence():
    """What an excerpt is encoded as comes nearer to what it is among 30 s than without them."""
    encoder = tiny.model().encoder
    short, long = _mel(40), torch.full((1, 20, 3_000), -0.8)
    long[:, :, :80] = short
    whole = encoder(long)[:, :36]
    cut = encoder(short)[:, :36]
    stood_for = encoder.with_silence(short, None)[0][:, :36]
    assert float((stood_for - whole).norm()) < 0.2 * float((cut - whole).norm())


def test_where_there_is_no_place_for_silence_none_is_added():
    encoder = tiny.model().encoder
    mel = torch.randn(1, 20, 3_000, generator=torch.Generator().manual_seed(2))
    vectors, weights = encoder.with_silence(mel, None)
    assert weights is None
    _close(vectors, encoder(mel))


def test_token_by_token_equals_all_at_once():
    decoder = tiny.model().decoder
    audio, tokens = _audio(2, 25), _tokens(2, 9)
    whole, scores = decoder(tokens, _at(0, 0), decoder.start(audio, None, 16), 9, tiny.HEADS)
    assert scores.shape == (2, len(tiny.HEADS), 9, 25)
    cache = decoder.start(audio, None, 16)
    for at in range(9):
        token = tokens[:, at : at + 1]
        states, step_scores = decoder(token, _at(at, at), cache, at + 1, tiny.HEADS)
        _close(states[:, 0], whole[:, at])
        _close(step_scores[:, :, 0], scores[:, :, at])


def test_rows_at_different_places_with_different_audio():
    """A cache row goes on from its own length, and sees its own audio only."""
    decoder = tiny.model().decoder
    audio, tokens = _audio(2, 30), _tokens(2, 8)
    cache = decoder.start(audio, additive(length_mask(torch.tensor([18, 30]), 30)), 16)
    decoder(tokens[:, :5], _at(0, 0), cache, 5)
    nexts = torch.stack([tokens[0, 2:5], tokens[1, 5:8]])
    states, _ = decoder(nexts, _at(2, 5), cache, 8)
    for row, (frames, count) in enumerate([(18, 5), (30, 8)]):
        alone, _ = decoder(
            tokens[row : row + 1, :count],
            _at(0),
            decoder.start(audio[row : row + 1, :frames], None, 16),
            count,
        )
        _close(states[row], alone[0, count - 3 :])


def test_a_cache_cut_back_forgets():
    decoder = tiny.model().decoder
    audio, tokens = _audio(1, 20), _tokens(1, 6)
    cache = decoder.start(audio, None, 16)
    decoder(torch.cat([tokens[:, :3], _tokens(1, 5, seed=9)], dim=1), _at(0), cache, 8)
    states, _ = decoder(tokens[:, 3:], _at(3), cache, 6)
    whole, _ = decoder(tokens, _at(0), decoder.start(audio, None, 16), 6)
    _close(states, whole[:, 3:])


def test_selected_rows_go_on_alone():
    decoder = tiny.model().decoder
    audio, tokens = _audio(3, 20), _tokens(3, 6)
    whole, _ = decoder(tokens, _at(0, 0, 0), decoder.start(audio, None, 16), 6)
    cache = decoder.start(audio, None, 16)
    decoder(tokens[:, :4], _at(0, 0, 0), cache, 4)
    states, _ = decoder(tokens[[2, 0], 4:], _at(4, 4), cache.select(_at(2, 0)), 6)
    _close(states, whole[[2, 0], 4:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    """As on a GPU: two rows of different lengths, the text after what is in the cache already."""
    mel = torch.randn(2, 20, 60, generator=torch.Generator().manual_seed(2))
    lengths, tokens = torch.tensor([20, 30]), _tokens(2, 9)

    def outputs(model):
        audio, mask = model.encoder.with_silence(mel, lengths)
        cache = model.decoder.start(audio, mask, 16)
        assert audio.dtype == cache.text.dtype == model.encoder.positions.dtype
        model.decoder(tokens[:, :4], _at(0, 0), cache, 4)
        states, scores = model.decoder(tokens[:, 4:], _at(4, 4), cache, 9, tiny.HEADS)
        return model.decoder.logits(states), scores.float()

    for half, full in zip(outputs(tiny.model().to(dtype)), outputs(tiny.model()), strict=True):
        assert half.dtype == torch.float32
        real = full.isfinite()
        assert float((half - full)[real].norm() / full[real].norm()) < 0.05
