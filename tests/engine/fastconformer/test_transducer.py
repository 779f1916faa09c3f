"""Decoding: label looping says what the plain loop says, row by row, and leaves the same text."""

import pytest
import torch
from attrs import frozen

from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.transducer import Decoding, Text, decode


@frozen
class Emitted:
    """One token."""

    token: int
    place: int
    confidence: float


def greedy(scores, token):
    return token


def decode_plainly(model, frames, text, choose=greedy):
    """One row, (c, dim), frame by frame: what decoding means. ``choose``: the token to write where
    the likeliest is not the blank."""
    found = []
    for place in range(frames.shape[0]):
        for _ in range(model.config.max_symbols_per_step):
            scores = model.joint(frames[place], text.summary[0]).float()
            token = int(scores.argmax())
            if token == model.config.blank_token_id:
                break
            token = choose(scores, token)
            found.append(Emitted(token, place, float(scores.softmax(dim=0)[token])))
            text = model.decoder(torch.tensor([token]), text)
    return found, text


@pytest.fixture(scope="module")
def model(english):
    return load_model(english[1], torch.device("cpu"), torch.float32)


def texts(model, tokens):
    """The texts after each row of tokens (batch, n)."""
    text = model.decoder.start()
    text = Text(
        *(t.expand(len(tokens), *t.shape[1:]) for t in (text.hidden, text.cell, text.summary))
    )
    for column in tokens.t():
        text = model.decoder(column, text)
    return text


def one_token(model, batch):
    return texts(model, torch.zeros(batch, 1, dtype=torch.int64))


def row(text, number):
    pick = slice(number, number + 1)
    return Text(text.hidden[pick], text.cell[pick], text.summary[pick])


def emitted(decoding, number):
    rows = (decoding.tokens, decoding.places, decoding.confidences)
    count = int(decoding.emitted[number])
    return [
        Emitted(token, place, pytest.approx(confidence, abs=1e-5))
        for token, place, confidence in zip(
            *(r[number, :count].tolist() for r in rows), strict=True
        )
    ]


@pytest.mark.parametrize("chunk_frames", [1, 2, 14])
@torch.no_grad()
def test_label_looping_equals_the_plain_loop(model, chunk_frames):
    generator = torch.Generator().manual_seed(chunk_frames)
    batch = 64
    frames = torch.randn(batch, chunk_frames, 40, generator=generator) * 3.0
    counts = torch.randint(0, chunk_frames + 1, (batch,), generator=generator)
    before = texts(model, torch.randint(0, 20, (batch, 2), generator=generator))
    decoding = decode(model, frames, counts, before)
    most = 0
    for number in range(batch):
        expected, after = decode_plainly(
            model, frames[number, : counts[number]], row(before, number)
        )
        assert emitted(decoding, number) == expected
        torch.testing.assert_close(row(decoding.text, number).pack(), after.pack())
        most = max(most, len(expected))
    assert most >= 3, "nothing much was decoded"


@torch.no_grad()
def test_a_frame_that_never_says_blank_is_left_after_the_most_tokens(model):
    saved = model.joint.head.bias.clone()
    model.joint.head.bias[model.config.blank_token_id] = -1e4
    try:
        decoding = decode(
            model,
            torch.zeros(2, 3, 40),
            torch.tensor([3, 1]),
            one_token(model, 2),
        )
    finally:
        model.joint.head.bias.copy_(saved)
    assert decoding.emitted.tolist() == [30, 10]
    assert decoding.places[0, :30].tolist() == [0] * 10 + [1] * 10 + [2] * 10


@torch.no_grad()
def test_iterations_after_the_end_change_nothing(model):
    frames = torch.randn(5, 2, 40, generator=torch.Generator().manual_seed(3)) * 1.5
    decoding = decode(model, frames, torch.full((5,), 2), one_token(model, 5))
    before = [
        decoding.text.pack().clone(),
        decoding.emitted.clone(),
        decoding.tokens[:, :-1].clone(),
    ]
    decoding.advance(model, 10)
    after = [decoding.text.pack(), decoding.emitted, decoding.tokens[:, :-1]]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@torch.no_grad()
def test_the_prediction_network_is_an_lstm(model):
    """Against the library's own LSTM on the same weights."""
    tokens = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(0))
    sequence = torch.cat([torch.full((3, 1), model.config.blank_token_id), tokens], dim=1)
    output, (hidden, cell) = model.decoder.lstm(model.decoder.embedding(sequence).transpose(0, 1))
    text = texts(model, tokens)
    torch.testing.assert_close(text.summary, model.decoder.decoder_projector(output[-1]))
    torch.testing.assert_close(text.hidden, hidden.transpose(0, 1))
    torch.testing.assert_close(text.cell, cell.transpose(0, 1))


def test_packing_a_text_loses_nothing():
    text = Text(torch.randn(3, 2, 5), torch.randn(3, 2, 5), torch.randn(3, 5))
    again = Text.unpack(text.pack(), 2)
    assert torch.equal(again.hidden, text.hidden)
    assert torch.equal(again.cell, text.cell)
    assert torch.equal(again.summary, text.summary)


def test_a_decoding_of_nothing_is_finished():
    text = Text(torch.zeros(2, 2, 5), torch.zeros(2, 2, 5), torch.zeros(2, 5))
    decoding = Decoding.begin(torch.zeros(2, 3, 5), torch.zeros(2, dtype=torch.int64), text, 30)
    assert not decoding.active().any()
