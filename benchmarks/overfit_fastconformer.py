"""A small FastConformer that has learnt a sentence by heart, for tests of the whole path.

    python -m benchmarks.overfit_fastconformer --evaldata DIR --out DIR [--steps 1500]

The architecture of the published checkpoints at a small size, trained on recordings in the public
domain: Kennedy's sentence and eight of LJ Speech. With 1,500 steps (ten minutes of one core) it
transcribes Kennedy's through the streaming path, word for word, with chunks of 80, 160, 560 and
1,120 ms: the mask of each is drawn anew for every batch. Of the others it mostly takes one for
another: his is drawn more often, since its phrases are clips of their own (a turn may have ended in
his pauses). Clips begin with a stretch of near silence and follow one another. Loss: the
transducer's, and a little CTC.

Written: a checkpoint directory (weights in half precision), as ``checkpoint.load_model`` reads it.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from attrs import frozen
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer.config import FRAME, HOP, EncoderConfig, ModelConfig
from ssasr.engine.fastconformer.encoder import Block, Span, encoder_frames
from ssasr.engine.fastconformer.features import LogMel
from ssasr.engine.fastconformer.program import ENDLESS
from ssasr.engine.fastconformer.slots import LOOKBACK
from ssasr.engine.fastconformer.transducer import Model
from ssasr.protocol.recognition import SAMPLE_RATE

PIECES = 120
LOOKAHEADS = (13, 6, 1, 0)
ENCODER = EncoderConfig(128, 3, 4, 256, 80, 71, 9, 16, False, False, False)
DECODER_SIZE = 96
CTC = 0.3
"""Share of the CTC loss."""
KENNEDY = (
    (0.0, "And so, my fellow Americans,"),
    (2.65, "ask not"),
    (4.85, "what your country can do for you,"),
    (7.95, "ask what you can do for your country."),
    (11.0, ""),
)
"""Where each phrase begins, in seconds: in the middle of the pause before it."""
PACKAGE = Path(__file__).parent.parent / "ssasr" / "data"


@frozen(eq=False)
class Clip:
    audio: np.ndarray
    text: str


def clips(evaldata: Path) -> list[Clip]:
    """What there is to learn."""
    kennedy, _ = soundfile.read(PACKAGE / "en_jfk.flac", dtype="float32")
    found = []
    for first in range(4):
        for last in range(first + 1, 5):
            begin, end = (round(KENNEDY[n][0] * SAMPLE_RATE) for n in (first, last))
            text = " ".join(phrase for _, phrase in KENNEDY[first:last])
            found.append(Clip(kennedy[begin:end], text))
    with (evaldata / "manifest.dev.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    for entry in entries:
        if entry["id"].startswith("en_lj_"):
            audio, _ = soundfile.read(evaldata / entry["file"], dtype="float32")
            found.append(Clip(audio, entry["reference"].replace('"', "")))
    return found


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Pieces as SentencePiece makes them, ``<unk>`` the first."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=PIECES, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Sampler:
    """Draws batches: clips, alone or one after the other, with something quiet before and after."""

    def __init__(self, found: list[Clip], tokenizer: Tokenizer, bins: int) -> None:
        self._clips, self._tokenizer, self._log_mel = found, tokenizer, LogMel(bins)
        self._random = random.Random(0)
        self._noise = np.random.default_rng(0)

    def batch(self, size: int) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Log-mel (batch, 8 T + 7, bins), mel frames (batch,) and tokens."""
        audios, texts = zip(*(self._example() for _ in range(size)), strict=True)
        lengths = torch.tensor([len(audio) for audio in audios])
        mel_frames = lengths // HOP
        frames = int(encoder_frames(mel_frames).max())
        samples = torch.zeros(size, LOOKBACK + frames * FRAME)
        present = torch.zeros_like(samples, dtype=torch.bool)
        for row, audio in enumerate(audios):
            samples[row, LOOKBACK : LOOKBACK + len(audio)] = torch.from_numpy(audio)
            present[row, LOOKBACK : LOOKBACK + len(audio)] = True
        wanted = HOP * (8 * frames + 6) + 401
        mel = self._log_mel(samples[:, :wanted], present[:, :wanted])
        return mel, mel_frames, [self._tokenizer.encode(text).ids for text in texts]

    def _example(self) -> tuple[np.ndarray, str]:
        chosen = [self._random.choice(self._clips)]
        while (
            sum(len(clip.audio) for clip in chosen) < 4 * SAMPLE_RATE
            and self._random.random() < 0.5
        ):
            chosen.append(self._random.choice(self._clips))
        parts = [self._quiet(0.6)]
        for clip in chosen:
            gain = 10 ** self._random.uniform(-0.4, 0.2)
            parts += [gain * clip.audio, self._quiet(1.0)]
        audio = np.concatenate(parts)
        level = 10 ** self._random.uniform(-4.5, -2.5)
        audio = audio + level * self._noise.standard_normal(len(audio)).astype(np.float32)
        return audio.astype(np.float32), " ".join(clip.text for clip in chosen)

    def _quiet(self, most: float) -> np.ndarray:
        return np.zeros(round(self._random.uniform(0, most) * SAMPLE_RATE), np.float32)


def encode(model: Model, mel: Tensor, mel_frames: Tensor, chunk: int) -> Tensor:
    """Whole utterances at once under the mask of chunks of that many frames: (batch, T, dim), what
    the encoder would give chunk by chunk."""
    encoder, span = model.encoder, Span(torch.zeros_like(mel_frames), mel_frames)
    x = encoder.subsampling(mel, Span(span.first, torch.full_like(mel_frames, ENDLESS)))
    count = x.shape[1]
    relative = encoder.relative_keys(count)
    number = torch.arange(count) // chunk * chunk
    near = (number[None] <= number[:, None]) & (
        torch.arange(count) >= number[:, None] - model.config.encoder.left_frames(chunk)
    )
    mask = near[None] & (torch.arange(count) < span.frames()[:, None, None])
    for layer, block in enumerate(encoder.layers):
        x = _block(block, x, relative[layer], mask)
    return x


def _block(block: Block, x: Tensor, relative: Tensor, mask: Tensor) -> Tensor:
    batch, count, dim = x.shape
    attention = block.self_attn
    x = block.before_attention(x)
    queries, new = attention.project(block.norm_self_att(x))
    by_head = queries.view(batch, count, attention.heads, attention.head_size)
    scores = attention._position_scores(by_head, relative, count)
    scores = scores.masked_fill(~mask[:, None], -1e4)
    key, value = new.view(batch, count, 2, attention.heads, attention.head_size).unbind(2)
    mixed = fn.scaled_dot_product_attention(
        (by_head + attention.bias_u).transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
        attn_mask=scores,
    )  # fmt: skip
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(batch, count, dim))
    gated = block.conv.gate(block.norm_conv(x))
    context = block.conv.depthwise_conv.kernel_size[0] - 1
    x = x + block.conv.convolve(fn.pad(gated, (0, 0, context, 0)))
    return block.after_convolution(x)


def summaries(model: Model, tokens: Tensor) -> Tensor:
    """(batch, U) to the text's summaries before each token and after the last, (batch, U + 1,
    dim)."""
    network = model.decoder
    begun = fn.pad(tokens, (1, 0), value=network.blank)
    outputs, _ = network.lstm(network.embedding(begun).transpose(0, 1))
    return network.decoder_projector(outputs.transpose(0, 1))  # type: ignore[no-any-return]


def transducer_loss(scores: Tensor, tokens: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the batch of -log P(tokens): scores (batch, T, U + 1, vocabulary), blank the last
    of it. Row t of the forward variables is one cumulative sum over the tokens (Graves, 1211.3711,
    equation 16, unrolled): a(t, u) = E(u) + logcumsumexp(a(t - 1, u) + blank(t - 1, u) - E(u))
    with E the sum of the first u tokens' log probabilities at t."""
    logs = scores.log_softmax(3)
    blank = logs[..., -1]
    index = tokens[:, None, :, None].expand(-1, logs.shape[1], -1, 1)
    emit = logs[:, :, :-1].gather(3, index)[..., 0]
    emit = fn.pad(emit.cumsum(2), (1, 0))
    blanks, emits = blank.unbind(1), emit.unbind(1)
    alpha = emits[0]
    ends = [alpha]
    for before, here in zip(blanks, emits[1:], strict=False):
        alpha = here + (alpha + before - here).logcumsumexp(1)
        ends.append(alpha)
    row = torch.arange(len(tokens))
    last = torch.stack(ends, 1)[row, frames - 1, lengths] + blank[row, frames - 1, lengths]
    return -(last / lengths).mean()


def train(found: list[Clip], tokenizer: Tokenizer, steps: int, batch: int) -> Model:
    """The model that has learnt them."""
    torch.manual_seed(0)
    vocabulary = tokenizer.get_vocab_size() + 1
    config = ModelConfig(ENCODER, vocabulary, vocabulary - 1, DECODER_SIZE, 2)
    model, sampler = Model(config), Sampler(found, tokenizer, ENCODER.num_mel_bins)
    ctc = nn.Linear(DECODER_SIZE, vocabulary)
    parameters = [*model.parameters(), *ctc.parameters()]
    optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=1e-2, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.1
    )
    began = time.process_time()
    for step in range(steps):
        mel, mel_frames, texts = sampler.batch(batch)
        losses = _losses(model, ctc, mel, mel_frames, texts)
        optimizer.zero_grad()
        (losses[0] + CTC * losses[1]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            shown = " ".join(f"{float(loss.detach()):.4f}" for loss in losses)
            print(step, shown, f"{time.process_time() - began:.0f} s", flush=True)
    return model.eval().requires_grad_(False)


def _losses(
    model: Model, ctc: nn.Linear, mel: Tensor, mel_frames: Tensor, texts: list[list[int]]
) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(text) for text in texts])
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    chunk = random.choice(LOOKAHEADS) + 1
    frames = model.encoder_projector(encode(model, mel, mel_frames, chunk))
    counts = encoder_frames(mel_frames)
    scores = model.joint(frames[:, :, None], summaries(model, tokens)[:, None])
    loss = transducer_loss(scores, tokens, counts, lengths)
    logs = ctc(frames).log_softmax(2).transpose(0, 1)
    beside = fn.ctc_loss(logs, tokens, counts, lengths, len(ctc.bias) - 1, zero_infinity=True)
    return loss, beside


def save(model: Model, tokenizer: Tokenizer, directory: Path) -> None:
    """As the library lays a checkpoint out."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(library_tensors(model), directory / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    _write(directory / "config.json", _config(model.config))
    _write(directory / "processor_config.json", _processor(model.config.encoder))


def library_tensors(model: Model) -> dict[str, Tensor]:
    """In half precision, under the names that the library gives them."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        parts = {name: tensor}
        if ".qkv_proj." in name:
            thirds = zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True)
            parts = {name.replace("qkv_proj", part): third for part, third in thirds}
        elif "conv.pointwise_conv" in name and tensor.dim() == 2:
            parts = {name: tensor[..., None]}
        tensors.update({key: part.half().contiguous().clone() for key, part in parts.items()})
    return tensors


def _config(config: ModelConfig) -> dict:
    names = ("vocab_size", "blank_token_id", "decoder_hidden_size", "num_decoder_layers",
             "max_symbols_per_step")  # fmt: skip
    encoder = {name: getattr(config.encoder, name) for name in EncoderConfig.__annotations__}
    return {
        "model_type": "nemotron_asr_streaming",
        "encoder_config": encoder,
        **{name: getattr(config, name) for name in names},
    }


def _processor(config: EncoderConfig) -> dict:
    features = {"feature_size": config.num_mel_bins, "hop_length": HOP, "n_fft": 512,
                "preemphasis": 0.97, "sampling_rate": SAMPLE_RATE, "win_length": 400}  # fmt: skip
    return {"feature_extractor": features, "supported_num_lookahead_tokens": LOOKAHEADS}


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = clips(given.evaldata)
    tokenizer = make_tokenizer([clip.text for clip in found])
    save(train(found, tokenizer, given.steps, given.batch), tokenizer, given.out)


if __name__ == "__main__":
    main()
