"""The reference implementation (transformers) at a small size, and its checkpoints."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    Nemotron3_5AsrConfig,
    Nemotron3_5AsrForRNNT,
    Nemotron3_5AsrProcessor,
    NemotronAsrStreamingConfig,
    NemotronAsrStreamingEncoderConfig,
    NemotronAsrStreamingFeatureExtractor,
    NemotronAsrStreamingForRNNT,
    NemotronAsrStreamingProcessor,
    ParakeetTokenizer,
)
from transformers.convert_slow_tokenizer import ParakeetConverter

SAMPLE_RATE = 16_000
WORDS = [
    "a",
    "the",
    "cat",
    "sat",
    "on",
    "my",
    "mat",
    "and",
    "it",
    "was",
    "good",
    "then",
    "we",
    "all",
]
PARTS = ["s", "ed", "ing", ".", "?", ",", "▁", "<0xC3>", "<0xA9>", "er"]
LOOKAHEADS = [13, 6, 3, 1, 0]


def tokenizer():
    """Some thirty pieces of every kind, a language tag among them, and the blank at the end."""
    pieces = ["<unk>", *(f"▁{word}" for word in WORDS), *PARTS, "<en-US>", "<de-DE>"]
    inner = Tokenizer(
        models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=False)
    )
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    return ParakeetTokenizer(
        tokenizer_object=inner,
        unk_token="<unk>",
        pad_token="<unk>",
        extra_special_tokens={"blank_token": "<blank>"},
    )


def converted_tokenizer(pieces):
    """As the library makes one of a SentencePiece model, whose ``pieces`` have a type each: 1 for
    an ordinary one, 2 unknown, 3 control, 4 defined by the user."""
    scored = [SimpleNamespace(piece=p, score=-float(n), type=t) for n, (p, t) in enumerate(pieces)]
    converter = ParakeetConverter.__new__(ParakeetConverter)  # which would read a file
    converter.original_tokenizer, converter.proto = (
        None,
        SimpleNamespace(
            pieces=scored,
            trainer_spec=SimpleNamespace(unk_piece="<unk>"),
            normalizer_spec=SimpleNamespace(precompiled_charsmap=b""),
        ),
    )
    return ParakeetTokenizer(
        tokenizer_object=converter.converted(),
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"blank_token": "<blank>"},
    )


def small_model(*, multilingual=False, seed=0, fast=False, **encoder):
    """A random reference model whose greedy decoding says something on some frames; with ``fast``
    as it is initialised."""
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "subsampling_conv_channels": 8,
        "num_mel_bins": 80,
        # Shorter than the published 70 and 56 frames, so that short audio fills it; 30 is no
        # multiple of the longer chunks.
        "sliding_window": 31,
        "convolution_bias": not multilingual,
        "attention_bias": not multilingual,
        **encoder,
    }
    vocabulary = len(tokenizer())
    kind, config_kind = NemotronAsrStreamingForRNNT, NemotronAsrStreamingConfig
    if multilingual:
        kind, config_kind = Nemotron3_5AsrForRNNT, Nemotron3_5AsrConfig
    config = config_kind(
        encoder_config=NemotronAsrStreamingEncoderConfig(**sizes),
        vocab_size=vocabulary,
        blank_token_id=vocabulary - 1,
        decoder_hidden_size=40,
        **({"prompt_intermediate_size": 64} if multilingual else {}),
    )
    model = kind(config).eval()
    model.generation_config.decoder_start_token_id = config.blank_token_id
    if not fast:
        liven(model)
    return model


@torch.no_grad()
def liven(model, emitting=0.05):
    """Initial weights are so small that every frame and every text look alike. Make both matter,
    the frame more, and set the blank's bias so that of all pairs of a frame and a text a share of
    ``emitting`` says something. The first frames are unlike all others, and left out of it."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            parameter.normal_(0.0, 0.1)
    model.decoder.embedding.weight.normal_(0.0, 2.0)
    model.joint.head.weight.mul_(3.0)
    mel, mask = features(model, [utterance(seed, 40_000) for seed in range(4)])
    frames = model.get_audio_features(mel, attention_mask=mask, num_lookahead_tokens=1)
    standardise(model.encoder_projector, frames.pooler_output[:, 8:].flatten(0, 1), 2.0)
    frames = model.get_audio_features(mel, attention_mask=mask, num_lookahead_tokens=1)
    texts = torch.randint(0, model.config.vocab_size - 1, (64, 5))
    standardise(model.decoder.decoder_projector, model.decoder(texts)[:, -1], 1.0)
    pairs = frames.pooler_output[:, 8:].flatten(0, 1)[:, None] + model.decoder(texts)[None, :, -1]
    scores = model.joint.head(pairs.relu()).flatten(0, 1)
    blank = model.config.blank_token_id
    margin = scores[:, :blank].amax(1) - scores[:, blank]
    model.joint.head.bias[blank] += margin.quantile(1.0 - emitting)


def standardise(layer, outputs, wanted):
    """Rescale a linear layer so that ``outputs`` (rows, dim) would have mean 0 and the deviation
    that is wanted."""
    mean, deviation = outputs.mean(0), (outputs.std(0) + 1e-3) / wanted
    layer.weight.div_(deviation[:, None])
    layer.bias.sub_(mean).div_(deviation)


def published(directory: Path):
    """The reference model of a published ``config.json``, at its full size and without numbers."""
    multilingual = "multilingual" in directory.name
    kind = Nemotron3_5AsrForRNNT if multilingual else NemotronAsrStreamingForRNNT
    with torch.device("meta"):
        return kind(kind.config_class.from_pretrained(directory))


def save(model, directory: Path) -> Path:
    """A checkpoint directory as the library lays it out, tokenizer and processor included."""
    multilingual = isinstance(model, Nemotron3_5AsrForRNNT)
    features = NemotronAsrStreamingFeatureExtractor(
        feature_size=model.config.encoder_config.num_mel_bins
    )
    kind = Nemotron3_5AsrProcessor if multilingual else NemotronAsrStreamingProcessor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory)
        kind(features, tokenizer(), supported_num_lookahead_tokens=LOOKAHEADS).save_pretrained(
            directory
        )
    return directory


def utterance(seed: int, samples: int) -> np.ndarray:
    """Random audio with some structure: tones that come and go, over noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / SAMPLE_RATE
    audio = 0.02 * generator.standard_normal(samples)
    for _ in range(1 + samples // 4000):
        begin, length = generator.uniform(0, time[-1] + 0.1), generator.uniform(0.05, 0.4)
        tone = np.sin(2 * np.pi * generator.uniform(100, 4000) * time)
        audio += generator.uniform(0.05, 0.4) * tone * ((time > begin) & (time < begin + length))
    return audio.astype(np.float32).clip(-1, 1)


def features(model, audios: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """The reference's log-mel (batch, frames, bins) and mask."""
    extractor = NemotronAsrStreamingFeatureExtractor(
        feature_size=model.config.encoder_config.num_mel_bins
    )
    found = extractor(audios, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    return found["input_features"], found["attention_mask"]


@torch.no_grad()
def offline_frames(model, audio: np.ndarray, lookahead: int, prompt: int | None = None) -> Tensor:
    """The reference's projected encoder frames of a whole utterance, (frames, dim)."""
    mel, mask = features(model, [audio])
    extra = {} if prompt is None else {"prompt_ids": torch.tensor([prompt])}
    found = model.get_audio_features(
        mel, attention_mask=mask, num_lookahead_tokens=lookahead, **extra
    )
    return found.pooler_output[0, : int(found.attention_mask.sum())]


@torch.no_grad()
def streamed_frames(model, audio: np.ndarray, lookahead: int, prompt: int | None = None) -> Tensor:
    """The reference's projected frames with its own caches, as many whole chunks as there are."""
    mel, _ = features(model, [audio])
    extra = {} if prompt is None else {"prompt_ids": torch.tensor([prompt])}
    attention = convolution = None
    frames, begin = [], 0
    while True:
        # The first chunk is the odd one: one mel frame for its first encoder frame.
        end = 1 + 8 * lookahead if begin == 0 else begin + 8 * (lookahead + 1)
        if end > len(audio) // 160:
            return torch.cat(frames, dim=1)[0]
        found = model.get_audio_features(
            mel[:, begin:end],
            past_key_values=attention,
            padding_cache=convolution,
            num_lookahead_tokens=lookahead,
            use_cache=True,
            **extra,
        )
        attention, convolution = found.past_key_values, found.padding_cache
        frames.append(found.pooler_output)
        begin = end


@torch.no_grad()
def offline_tokens(model, audios: list[np.ndarray], lookahead: int, prompt=None):
    """The reference's greedy tokens, and the frames they were emitted at, of each utterance."""
    mel, mask = features(model, audios)
    extra = {} if prompt is None else {"prompt_ids": torch.full((len(audios),), prompt)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.generate(
            input_features=mel, attention_mask=mask, num_lookahead_tokens=lookahead, **extra
        )
    ends = model._get_subsampling_output_length(mask.sum(-1)).tolist()
    return [
        emissions(model, sequence, durations, end)
        for sequence, durations, end in zip(found.sequences, found.durations, ends, strict=True)
    ]


@torch.no_grad()
def streamed_tokens(model, audio: np.ndarray, lookahead: int) -> list[tuple[int, int]]:
    """What the reference's streaming ``generate`` says to the whole chunks of an utterance."""
    mel, _ = features(model, [audio])

    def chunks():
        begin, end = 0, 1 + 8 * lookahead
        while end <= len(audio) // 160:
            yield mel[:, begin:end]
            begin, end = end, end + 8 * (lookahead + 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.generate(input_features=chunks(), num_lookahead_tokens=lookahead)
    return emissions(model, found.sequences[0], found.durations[0], 10**9)


def emissions(model, sequence: Tensor, durations: Tensor, end: int) -> list[tuple[int, int]]:
    """(token, frame) of what one row of ``generate`` emitted before frame ``end``. The first token
    of a sequence is the blank that decoding starts with."""
    frame, emitted = 0, []
    for token, advance in zip(sequence.tolist()[1:], durations.tolist()[1:], strict=True):
        if frame >= end:
            break
        if token != model.config.blank_token_id:
            emitted.append((token, frame))
        frame += advance
    return emitted
