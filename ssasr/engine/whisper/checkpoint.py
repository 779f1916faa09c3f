"""From the three published layouts of Whisper's weights to our module's names, strictly.

OpenAI's ``.pt``, Hugging Face's safetensors and CTranslate2's ``model.bin`` hold the same tensors
under different names; ours joins the projections that are applied to the same input, which
CTranslate2 does too. A tensor too many, too few or of another shape is an error that names it.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ssasr.engine.whisper.model import Dims, Whisper
from ssasr.errors import WeightsError

Parts = tuple[str | None, ...]
"""Names of the tensors that are joined along the first axis; None: zeros (the key's bias)."""

HEAD_WIDTH = 64
"""The width of an attention head in every published Whisper model."""

_OPENAI = {
    "attention.qkv": ("attn.query", "attn.key", "attn.value"),
    "attention.out": ("attn.out",),
    "attention_norm": ("attn_ln",),
    "cross.query": ("cross_attn.query",),
    "cross.kv": ("cross_attn.key", "cross_attn.value"),
    "cross.out": ("cross_attn.out",),
    "cross_norm": ("cross_attn_ln",),
    "mlp_in": ("mlp.0",),
    "mlp_out": ("mlp.2",),
    "mlp_norm": ("mlp_ln",),
}
_HUGGING_FACE = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.out_proj",),
    "attention_norm": ("self_attn_layer_norm",),
    "cross.query": ("encoder_attn.q_proj",),
    "cross.kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross.out": ("encoder_attn.out_proj",),
    "cross_norm": ("encoder_attn_layer_norm",),
    "mlp_in": ("fc1",),
    "mlp_out": ("fc2",),
    "mlp_norm": ("final_layer_norm",),
}
_CTRANSLATE2 = {
    "attention.qkv": ("self_attention/linear_0",),
    "attention.out": ("self_attention/linear_1",),
    "attention_norm": ("self_attention/layer_norm",),
    "cross.query": ("attention/linear_0",),
    "cross.kv": ("attention/linear_1",),
    "cross.out": ("attention/linear_2",),
    "cross_norm": ("attention/layer_norm",),
    "mlp_in": ("ffn/linear_0",),
    "mlp_out": ("ffn/linear_1",),
    "mlp_norm": ("ffn/layer_norm",),
}
_KEYS = ("attn.key", "cross_attn.key", "self_attn.k_proj", "encoder_attn.k_proj")
"""The projections that have no bias."""

_CTRANSLATE2_SETTINGS = frozenset(
    f"{side}/{name}"
    for side in ("encoder", "decoder")
    for name in (
        "activation",
        "alibi",
        "alignment_heads",
        "alignment_layer",
        "num_heads",
        "pre_norm",
        "scale_embeddings",
        "start_from_zero_embedding",
    )
)
"""Numbers in the file that describe the graph, the same for every Whisper model."""


def load(tensors: Mapping[str, Tensor]) -> Whisper:
    """A model in float32, in evaluation mode. Raises WeightsError."""
    ours, dims = translate(tensors)
    with torch.device("meta"):
        model = Whisper(dims)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, tensor in ours.items():
        if tensor.shape != expected[name]:
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name])}"
            )
    model.load_state_dict(ours, strict=True, assign=True)
    # Assignment gives the projection a parameter of its own; the two are one matrix.
    model.decoder.projection.weight = model.decoder.embedding.weight
    return model.eval().requires_grad_(False)


def translate(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Dims]:
    """Tensors by our names, float32, and the sizes they imply."""
    layout = _layout(tensors)
    unused = dict(tensors)
    ours: dict[str, Tensor] = {}
    for target, parts in layout.items():
        missing = [part for part in parts if part is not None and part not in tensors]
        if missing:
            raise WeightsError(f"the weights lack {', '.join(missing)}")
        present = [tensors[part] for part in parts if part is not None]
        zeros = torch.zeros_like(present[0])
        joined = [zeros if part is None else tensors[part] for part in parts]
        ours[target] = torch.cat(joined).float() if len(joined) > 1 else joined[0].float()
        for part in parts:
            unused.pop(part or "", None)
    if unused:
        raise WeightsError(f"the weights hold unknown tensors: {', '.join(sorted(unused)[:5])}")
    ours["decoder.projection.weight"] = ours["decoder.embedding.weight"]
    return ours, _dims(ours)


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, Parts]:
    """Our names and what each is made of, for the layout that the names show."""
    if "encoder/conv1/weight" in tensors:
        return _ctranslate2_layout(tensors)
    if "model.encoder.conv1.weight" in tensors:
        side = {"encoder": "model.encoder", "decoder": "model.decoder"}
        tail = {
            "encoder.positions": "model.encoder.embed_positions.weight",
            "decoder.positions": "model.decoder.embed_positions.weight",
            "decoder.embedding.weight": "model.decoder.embed_tokens.weight",
        }
        tied = ("decoder.projection.weight", "proj_out.weight")
        return _dotted(tensors, _HUGGING_FACE, side, "layers", ("layer_norm",) * 2, tail, tied)
    if "encoder.conv1.weight" in tensors:
        side = {"encoder": "encoder", "decoder": "decoder"}
        tail = {
            "encoder.positions": "encoder.positional_embedding",
            "decoder.positions": "decoder.positional_embedding",
            "decoder.embedding.weight": "decoder.token_embedding.weight",
        }
        return _dotted(tensors, _OPENAI, side, "blocks", ("ln_post", "ln"), tail, None)
    raise WeightsError("these are not the weights of a Whisper model in a known layout")


def _dotted(
    tensors: Mapping[str, Tensor],
    layer_names: Mapping[str, tuple[str, ...]],
    side: Mapping[str, str],
    layers: str,
    norms: tuple[str, str],
    tail: Mapping[str, str],
    tied: tuple[str, str] | None,
) -> dict[str, Parts]:
    """The layout of OpenAI and Hugging Face, whose names differ but have the same structure."""
    result: dict[str, Parts] = {ours: (theirs,) for ours, theirs in tail.items()}
    for ours, norm in zip(("encoder", "decoder"), norms, strict=True):
        theirs = side[ours]
        for kind in ("weight", "bias"):
            result[f"{ours}.norm.{kind}"] = (f"{theirs}.{norm}.{kind}",)
            if ours == "encoder":
                result[f"encoder.conv1.{kind}"] = (f"{theirs}.conv1.{kind}",)
                result[f"encoder.conv2.{kind}"] = (f"{theirs}.conv2.{kind}",)
            for number in range(_count(tensors, rf"{re.escape(theirs)}\.{layers}\.(\d+)\.")):
                for name, parts in layer_names.items():
                    if name.startswith("cross") and ours == "encoder":
                        continue
                    result[f"{ours}.layers.{number}.{name}.{kind}"] = tuple(
                        None
                        if kind == "bias" and part in _KEYS
                        else f"{theirs}.{layers}.{number}.{part}.{kind}"
                        for part in parts
                    )
    if tied is not None and tied[1] in tensors:
        result[tied[0]] = (tied[1],)
    return result


def _ctranslate2_layout(tensors: Mapping[str, Tensor]) -> dict[str, Parts]:
    result: dict[str, Parts] = {
        "decoder.embedding.weight": ("decoder/embeddings/weight",),
        "encoder.positions": ("encoder/position_encodings/encodings",),
        "decoder.positions": ("decoder/position_encodings/encodings",),
    }
    for kind, norm_kind in (("weight", "gamma"), ("bias", "beta")):
        result[f"encoder.conv1.{kind}"] = (f"encoder/conv1/{kind}",)
        result[f"encoder.conv2.{kind}"] = (f"encoder/conv2/{kind}",)
        for side in ("encoder", "decoder"):
            result[f"{side}.norm.{kind}"] = (f"{side}/layer_norm/{norm_kind}",)
            for number in range(_count(tensors, rf"{side}/layer_(\d+)/")):
                for name, parts in _CTRANSLATE2.items():
                    if name.startswith("cross") and side == "encoder":
                        continue
                    suffix = norm_kind if name.endswith("norm") else kind
                    result[f"{side}.layers.{number}.{name}.{kind}"] = (
                        f"{side}/layer_{number}/{parts[0]}/{suffix}",
                    )
    if "decoder/projection/weight" in tensors:
        result["decoder.projection.weight"] = ("decoder/projection/weight",)
    for name in _CTRANSLATE2_SETTINGS & tensors.keys():
        result[f"settings.{name}"] = (name,)
    return result


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Layers that the names speak of."""
    numbers = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def _dims(ours: dict[str, Tensor]) -> Dims:
    """Takes the ``settings.`` entries out on the way: they are no tensors of the module."""
    for name in [name for name in ours if name.startswith("settings.")]:
        del ours[name]
    audio_width, mels, _ = ours["encoder.conv1.weight"].shape
    vocabulary, text_width = ours["decoder.embedding.weight"].shape
    return Dims(
        mels=mels,
        audio_context=ours["encoder.positions"].shape[0],
        audio_width=audio_width,
        audio_heads=audio_width // HEAD_WIDTH,
        audio_layers=_count(ours, r"encoder\.layers\.(\d+)\."),
        vocabulary=vocabulary,
        text_context=ours["decoder.positions"].shape[0],
        text_width=text_width,
        text_heads=text_width // HEAD_WIDTH,
        text_layers=_count(ours, r"decoder\.layers\.(\d+)\."),
    )
