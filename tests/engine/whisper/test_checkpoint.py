"""The three layouts hold the same model; anything unexpected is named."""

import pytest
import torch

from ssasr.engine.whisper import checkpoint
from ssasr.engine.whisper.model import Dims, Whisper
from ssasr.errors import WeightsError

DIMS = Dims(80, 1500, 128, 2, 2, 100, 448, 128, 2, 2)


@pytest.fixture
def model():
    torch.manual_seed(3)
    whisper = Whisper(DIMS)
    with torch.no_grad():
        for name, parameter in whisper.named_parameters():
            if name.endswith("qkv.bias"):
                parameter[128:256] = 0.0
            if name.endswith("kv.bias") and "cross" in name:
                parameter[:128] = 0.0
    return whisper.eval()


def _as_openai(model):
    """Each of our tensors split as OpenAI's files have them, by hand rather than by the table."""
    names = {
        "attention.out": "attn.out", "attention_norm": "attn_ln", "cross.query": "cross_attn.query",
        "cross.out": "cross_attn.out", "cross_norm": "cross_attn_ln", "mlp_in": "mlp.0",
        "mlp_out": "mlp.2", "mlp_norm": "mlp_ln",
    }  # fmt: skip
    result = {}
    for name, tensor in model.state_dict().items():
        side, _, rest = name.partition(".")
        if rest == "positions":
            result[f"{side}.positional_embedding"] = tensor
        elif name == "decoder.embedding.weight":
            result["decoder.token_embedding.weight"] = tensor
        elif name == "decoder.projection.weight":
            continue
        elif rest.startswith("conv"):
            result[name] = tensor
        elif rest.startswith("norm."):
            kind = rest.removeprefix("norm.")
            result[f"{side}.{'ln_post' if side == 'encoder' else 'ln'}.{kind}"] = tensor
        else:
            _, number, rest = rest.split(".", 2)
            part, _, kind = rest.rpartition(".")
            block = f"{side}.blocks.{number}"
            if part in ("attention.qkv", "cross.kv"):
                where = "attn" if part == "attention.qkv" else "cross_attn"
                pieces = ("query", "key", "value") if where == "attn" else ("key", "value")
                for piece, chunk in zip(pieces, tensor.chunk(len(pieces)), strict=True):
                    if (piece, kind) != ("key", "bias"):
                        result[f"{block}.{where}.{piece}.{kind}"] = chunk
            else:
                result[f"{block}.{names[part]}.{kind}"] = tensor
    return result


def _as_hugging_face(openai):
    renames = [
        ("cross_attn_ln", "encoder_attn_layer_norm"), ("cross_attn", "encoder_attn"),
        ("attn_ln", "self_attn_layer_norm"), (".attn.", ".self_attn."), (".query.", ".q_proj."),
        (".key.", ".k_proj."), (".value.", ".v_proj."), (".out.", ".out_proj."), ("mlp.0", "fc1"),
        ("mlp.2", "fc2"), ("mlp_ln", "final_layer_norm"), ("blocks", "layers"),
        ("ln_post", "layer_norm"), ("decoder.ln.", "decoder.layer_norm."),
        ("positional_embedding", "embed_positions.weight"), ("token_embedding", "embed_tokens"),
    ]  # fmt: skip
    result = {}
    for name, tensor in openai.items():
        for old, new in renames:
            name = name.replace(old, new)
        result["model." + name] = tensor
    return result


def _assert_same(loaded, model):
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert loaded.dims == DIMS


def test_openai(model):
    _assert_same(checkpoint.load(_as_openai(model)), model)


def test_hugging_face(model):
    tensors = _as_hugging_face(_as_openai(model))
    _assert_same(checkpoint.load(tensors), model)
    tied = {**tensors, "proj_out.weight": tensors["model.decoder.embed_tokens.weight"]}
    _assert_same(checkpoint.load(tied), model)


def test_half_precision_is_widened(model):
    loaded = checkpoint.load({name: t.half() for name, t in _as_openai(model).items()})
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())


def test_a_missing_tensor_is_named(model):
    tensors = _as_openai(model)
    del tensors["decoder.blocks.1.cross_attn.value.bias"]
    with pytest.raises(WeightsError, match=r"decoder\.blocks\.1\.cross_attn\.value\.bias"):
        checkpoint.load(tensors)


def test_an_unknown_tensor_is_named(model):
    tensors = {**_as_openai(model), "decoder.blocks.0.adapter.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"adapter\.weight"):
        checkpoint.load(tensors)


def test_a_wrong_shape_is_named(model):
    tensors = _as_openai(model)
    tensors["encoder.blocks.0.mlp.0.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError, match=r"encoder\.layers\.0\.mlp_in\.bias.*\(5,\)"):
        checkpoint.load(tensors)


def test_other_weights_are_refused():
    with pytest.raises(WeightsError, match="not the weights of a Whisper"):
        checkpoint.load({"linear.weight": torch.zeros(1)})
