"""Offline decoding against the reference implementation: the same weights, features and greedy
search in ``transformers``, token by token.

    python -m benchmarks.archive.whisper_reference [--evaldata ../shared/evaldata]
        [--model tiny.en]
        [--clips 50]

Full context (30 s), no time stamps, in float32: the question is whether the model, the features and
the search are Whisper's. Needs ``transformers``, which nothing else here does.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import transformers
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from benchmarks.conditions import conditions
from ssasr.engine.features import LogMel
from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.weights import read_weights
from ssasr.engine.whisper import checkpoint
from ssasr.engine.whisper.decoding import Decoding, Request
from ssasr.engine.whisper.model import Whisper
from ssasr.engine.whisper.passes import Network, PlainPasses
from ssasr.engine.whisper.settings import read_settings
from ssasr.engine.whisper.vocabulary import Vocabulary
from ssasr.models import catalogue

CONTEXT = 30 * 16_000
MOST_TOKENS = 200


def reference(model: Whisper) -> WhisperForConditionalGeneration:
    """Their module with our tensors, the joined projections taken apart again."""
    dims = model.dims
    config = WhisperConfig(
        vocab_size=dims.vocabulary, num_mel_bins=dims.mels, d_model=dims.audio_width,
        encoder_layers=dims.audio_layers, encoder_attention_heads=dims.audio_heads,
        decoder_layers=dims.text_layers, decoder_attention_heads=dims.text_heads,
        encoder_ffn_dim=4 * dims.audio_width, decoder_ffn_dim=4 * dims.text_width,
        max_source_positions=dims.audio_context, max_target_positions=dims.text_context,
    )  # fmt: skip
    theirs = WhisperForConditionalGeneration(config).eval()
    ours = model.state_dict()
    state = {}
    for name in theirs.state_dict():
        state[name] = tensor(ours, name)
    theirs.load_state_dict(state)
    return theirs


def tensor(ours: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    if name == "proj_out.weight":
        return ours["decoder.projection.weight"]
    name = name.removeprefix("model.")
    for old, new in (
        ("embed_positions.weight", "positions"), ("embed_tokens", "embedding"),
        ("encoder_attn_layer_norm", "cross_norm"), ("self_attn_layer_norm", "attention_norm"),
        ("final_layer_norm", "mlp_norm"), ("encoder.layer_norm", "encoder.norm"),
        ("decoder.layer_norm", "decoder.norm"), ("fc1", "mlp_in"), ("fc2", "mlp_out"),
        ("self_attn.out_proj", "attention.out"), ("encoder_attn.out_proj", "cross.out"),
        ("encoder_attn.q_proj", "cross.query"),
    ):  # fmt: skip
        name = name.replace(old, new)
    for part, (joined, place, pieces) in {
        "self_attn.q_proj": ("attention.qkv", 0, 3), "self_attn.k_proj": ("attention.qkv", 1, 3),
        "self_attn.v_proj": ("attention.qkv", 2, 3), "encoder_attn.k_proj": ("cross.kv", 0, 2),
        "encoder_attn.v_proj": ("cross.kv", 1, 2),
    }.items():  # fmt: skip
        if part in name:
            return ours[name.replace(part, joined)].chunk(pieces)[place]
    return ours[name]


def greedy(
    theirs: WhisperForConditionalGeneration, features: torch.Tensor, vocabulary: Vocabulary,
    language: str,
) -> list[int]:  # fmt: skip
    """Token by token without a cache: slow, and nothing in it that could be wrong."""
    encoded = theirs.model.encoder(features)
    prefix = vocabulary.prefix(language)
    tokens: list[int] = []
    while len(tokens) < MOST_TOKENS:
        ids = torch.tensor([prefix + tokens])
        logits = theirs(encoder_outputs=encoded, decoder_input_ids=ids).logits[0, -1]
        chosen = int((logits + (vocabulary.mask if tokens else vocabulary.first_mask)).argmax())
        if chosen == vocabulary.tokenizer.end:
            break
        tokens.append(chosen)
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = catalogue.resolve(arguments.model, pull=False)
    model = checkpoint.load(read_weights(files))
    tokenizer = WhisperTokenizer.load(files.directory)
    settings = read_settings(files.directory, model.dims, tokenizer)
    vocabulary = Vocabulary.build(
        tokenizer, model.dims.vocabulary, settings.suppressed, settings.suppressed_first
    )
    theirs = reference(model)
    extractor = WhisperFeatureExtractor(feature_size=model.dims.mels)
    mel = LogMel(model.dims.mels)
    network = Network(model, mel, settings.alignment_heads, vocabulary)
    ours = Decoding(PlainPasses(network), vocabulary, cut_loops=False)
    lines = (arguments.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["language"] in vocabulary.languages]
    random.Random(7).shuffle(clips)
    same, worst = 0, 0.0
    for clip in clips[: arguments.clips]:
        samples, rate = soundfile.read(arguments.evaldata / clip["file"], dtype="float32")
        if rate != 16_000:
            samples = soxr.resample(samples, rate, 16_000).astype(np.float32)
        with torch.inference_mode():
            request = Request(samples[:CONTEXT], clip["language"])
            text = list(ours([request], padding=CONTEXT)[0].tokens)
            features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
            padded = np.zeros(CONTEXT, np.float32)
            padded[: len(samples)] = samples[:CONTEXT]
            difference = (mel(torch.from_numpy(padded)[None]) - features).abs().max()
            expected = greedy(theirs, features, vocabulary, clip["language"])
        worst = max(worst, float(difference))
        same += text == expected
        if text != expected:
            print(clip["id"], tokenizer.decode(text), "|", tokenizer.decode(expected), flush=True)
    count = min(arguments.clips, len(clips))
    if arguments.json:
        arguments.json.write_text(json.dumps({
            **conditions(), "model": arguments.model, "clips": count, "identical": same,
            "features_differ_by": worst, "transformers": transformers.__version__,
        }, indent=1))  # fmt: skip
    print(f"identical tokens on {same} of {count} clips; features differ by {worst:.1e} at most")


if __name__ == "__main__":
    main()
