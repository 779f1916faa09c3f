"""Sizes of a cache-aware FastConformer RNN-T, as read from a checkpoint's ``config.json``.

Field names are the file's. A key that changes what the network computes and that we do not
implement is refused with its name, so that a checkpoint is run as it was trained or not at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import fields, frozen

from ssasr.errors import WeightsError

HOP = 160
"""Samples between two mel frames."""
SUBSAMPLING = 8
"""Mel frames to one encoder frame."""
FRAME = HOP * SUBSAMPLING
"""Samples between two encoder frames (80 ms)."""

_ENGLISH = "nemotron_asr_streaming"
_MULTILINGUAL = "nemotron3_5_asr"
# Facts of the architecture that the code is written for; any other value would be another network.
_ENCODER_FIXED = {
    "hidden_act": "silu",
    "subsampling_factor": SUBSAMPLING,
    "subsampling_conv_kernel_size": 3,
    "subsampling_conv_stride": 2,
}
# Training only, said again by the processor's file, or of no effect on what the network computes.
_ENCODER_IGNORED = {
    "activation_dropout",
    "attention_dropout",
    "default_num_lookahead_tokens",
    "dropout",
    "dropout_positions",
    "initializer_range",
    "layerdrop",
    "max_position_embeddings",
    "model_type",
    "num_key_value_heads",
    "supported_num_lookahead_tokens",
}


@frozen
class EncoderConfig:
    """Sizes of the encoder."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    num_mel_bins: int
    sliding_window: int
    """Left attention context plus one, in encoder frames."""
    conv_kernel_size: int = 9
    subsampling_conv_channels: int = 256
    attention_bias: bool = True
    convolution_bias: bool = True
    scale_input: bool = True

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def conv_context(self) -> int:
        """Past frames that the causal convolution looks at."""
        return self.conv_kernel_size - 1

    def left_frames(self, chunk_frames: int) -> int:
        """Past frames that every frame of a chunk attends to: whole chunks only, so that training
        with a chunk mask and streaming see the same context."""
        return (self.sliding_window - 1) // chunk_frames * chunk_frames

    @property
    def subsampled_bins(self) -> int:
        """Frequency bins left after the three strided convolutions."""
        bins = self.num_mel_bins
        for _ in range(3):
            bins = bins // 2 + 1
        return bins


@frozen
class ModelConfig:
    """Sizes of the whole model."""

    encoder: EncoderConfig
    vocab_size: int
    blank_token_id: int
    decoder_hidden_size: int
    num_decoder_layers: int
    max_symbols_per_step: int = 10
    num_prompts: int = 0
    """Slots of the language prompt; zero for a model without one."""
    prompt_intermediate_size: int = 0
    default_prompt_id: int = 0


def load_config(directory: Path) -> ModelConfig:
    """The configuration in ``directory/config.json``.

    Raises WeightsError naming the file and what is wrong with it."""
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return parse_config(raw)
    except FileNotFoundError:
        raise WeightsError(f"{directory} holds no config.json") from None
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The same, from the parsed file."""
    kind = raw.get("model_type")
    if kind not in (_ENGLISH, _MULTILINGUAL):
        raise WeightsError(f"model_type is {kind!r}, not {_ENGLISH!r} or {_MULTILINGUAL!r}")
    if raw.get("hidden_act", "relu") != "relu":
        raise WeightsError(f"the joint's hidden_act is {raw['hidden_act']!r}, not 'relu'")
    if raw.get("tie_word_embeddings", False):
        raise WeightsError("tie_word_embeddings is set; this model has no tied weights")
    nested = raw.get("encoder_config")
    if not isinstance(nested, Mapping):
        raise WeightsError("encoder_config is missing")
    names = ["vocab_size", "blank_token_id", "decoder_hidden_size", "num_decoder_layers"]
    names.append("max_symbols_per_step")
    if kind == _MULTILINGUAL:
        names += ["num_prompts", "prompt_intermediate_size", "default_prompt_id"]
    return ModelConfig(
        encoder=_parse_encoder(nested), **{name: _take(raw, name, int) for name in names}
    )


def _parse_encoder(raw: Mapping[str, Any]) -> EncoderConfig:
    for name, value in _ENCODER_FIXED.items():
        if raw.get(name, value) != value:
            raise WeightsError(f"encoder_config.{name} is {raw[name]!r}, not {value!r}")
    known = {field.name: field.type for field in fields(EncoderConfig)}
    own = set(raw) - _ENCODER_IGNORED - set(_ENCODER_FIXED) - _BOOKKEEPING
    if unknown := sorted(own - set(known)):
        raise WeightsError(f"encoder_config has keys that are not implemented: {unknown}")
    config = EncoderConfig(
        **{name: _take(raw, name, bool if kind is bool else int) for name, kind in known.items()}
    )
    if config.hidden_size % config.num_attention_heads:
        raise WeightsError("encoder_config.hidden_size is no multiple of num_attention_heads")
    return config


def _take(raw: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in raw:
        raise WeightsError(f"{name} is missing")
    if type(raw[name]) is not kind:
        raise WeightsError(f"{name} is {raw[name]!r}, not of type {kind.__name__}")
    return raw[name]


# What the library that saves such directories adds to every configuration, whatever the model.
_BOOKKEEPING = {
    "_name_or_path",
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
}
