"""Checkpoints that the reference has saved load strictly; others fail with one clear line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssasr.engine.fastconformer.checkpoint import load_model, load_processing, translate
from ssasr.engine.fastconformer.config import load_config
from ssasr.engine.fastconformer.detokenizer import PieceTable
from ssasr.engine.fastconformer.recognizer import build, create
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.errors import StartRefused, WeightsError
from ssasr.models import catalogue
from tests.engine.fastconformer import reference


@pytest.fixture
def copy(english, tmp_path):
    """A directory to spoil."""
    return shutil.copytree(english[1], tmp_path / "checkpoint")


def load(directory):
    return load_model(directory, torch.device("cpu"), torch.float32)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("architecture", ["english", "multilingual"])
def test_every_tensor_of_a_saved_checkpoint_arrives(architecture, request):
    theirs, directory = request.getfixturevalue(architecture)
    ours = load(directory)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    names = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if "qkv_proj" in name:
            parts = [
                names.pop(name.replace("qkv_proj", part)) for part in ("q_proj", "k_proj", "v_proj")
            ]
            assert torch.equal(parameter, torch.cat(parts)), name
        else:
            assert torch.equal(parameter, names.pop(name).reshape(parameter.shape)), name
    assert not names


PUBLISHED = Path(__file__).parents[2] / "data" / "nemotron"


def file_size(tensors):
    """Bytes of a safetensors file with these: the length of the header, the header, padded to a
    multiple of eight, the numbers."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        begin, end = end, end + tensors[name].numel() * tensors[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + -length % 8 + end


@pytest.mark.parametrize(
    ("name", "chunks"),
    [
        ("nemotron-english", "80, 160, 560, 1120"),
        ("nemotron-multilingual", "80, 320, 560, 1120"),
    ],
)
def test_the_published_checkpoints_fit(name, chunks):
    """Their small files are here, digests compared. What the reference would save with these has
    the names, shapes and order of the published weights, or it would not be as long as they are to
    the byte; and that is what we load, nothing left over."""
    directory = PUBLISHED / name
    files = {file.name: file for file in catalogue.find(name).files}
    for path in directory.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == files[path.name].sha256
    tensors = reference.published(directory).state_dict()
    assert file_size(tensors) == files["model.safetensors"].size
    config = load_config(directory)
    with torch.device("meta"):
        model = Model(config)
        state = translate(tensors, model, config)
    assert {n: t.shape for n, t in state.items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    processing = load_processing(directory, config)
    with pytest.raises(StartRefused, match=f"but {chunks} ms"):
        build(name, directory, model, None, 240, 1)
    assert processing.languages()[:2] == (("en", "es") if "multi" in name else ())


@pytest.mark.parametrize(("lookaheads", "chunk_ms"), [([13, 6, 1, 0], 160), ([3, 0, 6, 13], 320)])
def test_without_a_word_about_it_the_chunk_is_one_that_was_trained(copy, lookaheads, chunk_ms):
    edit(
        copy / "processor_config.json",
        lambda c: c.update(supported_num_lookahead_tokens=lookaheads),
    )
    assert build("test", copy, load(copy), None, None, 1).chunk == chunk_ms * 16


def test_shards_load_like_one_file(copy, english):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, copy / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    expected = load(english[1]).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in load(copy).state_dict().items())


def rename(tensors):
    tensors["encoder.layers.7.extra"] = torch.zeros(1)


def remove(tensors):
    del tensors["encoder.layers.1.self_attn.k_proj.weight"]


def reshape(tensors):
    tensors["joint.head.weight"] = torch.zeros(5, 40)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename, r"no use for: encoder\.layers\.7\.extra"),
        (remove, r"lacks encoder\.layers\.1\.self_attn\.k_proj\.weight"),
        (reshape, r"joint\.head\.weight is \(5, 40\), not \(\d+, 40\)"),
    ],
)
def test_wrong_tensors_are_named(copy, spoil, message):
    tensors = load_file(copy / "model.safetensors")
    spoil(tensors)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="whisper"), "model_type is 'whisper'"),
        (lambda c: c.update(hidden_act="tanh"), "hidden_act is 'tanh'"),
        (lambda c: c.pop("blank_token_id"), "blank_token_id is missing"),
        (lambda c: c.update(vocab_size="many"), "vocab_size is 'many'"),
        (
            lambda c: c["encoder_config"].update(conv_norm="batch"),
            r"not implemented: \['conv_norm'\]",
        ),
        (lambda c: c["encoder_config"].update(subsampling_factor=4), "subsampling_factor is 4"),
        (lambda c: c["encoder_config"].update(num_hidden_layers=True), "num_hidden_layers is True"),
        (lambda c: c["encoder_config"].update(num_attention_heads=5), "no multiple"),
    ],
)
def test_another_network_is_refused(copy, change, message):
    edit(copy / "config.json", change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_config(copy)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_or_broken_file_is_named(copy, name):
    (copy / name).write_bytes(b"{")
    with pytest.raises(WeightsError, match=name):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(WeightsError, match=name):
        load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["feature_extractor"].update(hop_length=200), "hop_length is 200"),
        (lambda c: c["feature_extractor"].update(feature_size=128), "feature_size is 128, not 80"),
        (lambda c: c.pop("supported_num_lookahead_tokens"), "not as expected"),
        (lambda c: c.update(prompt_dictionary={"en": 3}), "no prompt slot for 'en'"),
    ],
)
def test_another_processor_is_refused(copy, change, message):
    edit(copy / "processor_config.json", change)
    with pytest.raises(WeightsError, match=message):
        load_processing(copy, load_config(copy))


def test_prompts_need_names(multilingual, tmp_path):
    copy = shutil.copytree(multilingual[1], tmp_path / "checkpoint")
    edit(copy / "processor_config.json", lambda c: c.pop("prompt_dictionary"))
    with pytest.raises(WeightsError, match="no prompt_dictionary"):
        load_processing(copy, load_config(copy))


def test_languages_are_the_prompts(multilingual, english):
    processing = load_processing(multilingual[1], load_config(multilingual[1]))
    assert processing.languages()[:3] == ("en", "es", "zh")
    assert processing.prompt("zh") == 4  # has locales only
    assert processing.prompt("de") == 9
    assert processing.prompt("tlh") is None
    assert load_processing(english[1], load_config(english[1])).languages() == ()


def test_a_tokenizer_without_all_the_tokens_is_refused(copy):
    edit(copy / "tokenizer.json", lambda c: c["model"]["vocab"].pop())
    edit(copy / "tokenizer.json", lambda c: c["added_tokens"].clear())
    with pytest.raises(WeightsError, match="no piece for token"):
        PieceTable.load(copy, load_config(copy))
    (copy / "tokenizer.json").write_text("no")
    with pytest.raises(WeightsError, match="cannot be read"):
        PieceTable.load(copy, load_config(copy))


def test_a_chunk_the_model_was_not_trained_with_is_refused(english):
    with pytest.raises(StartRefused, match="240 ms, but 80, 160, 320, 560, 1120 ms"):
        build("test", english[1], load(english[1]), None, 240, 1)


def test_weights_that_are_not_here_are_not_pulled_by_the_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path))
    monkeypatch.delenv("SSASR_MODELS_DIR", raising=False)
    with pytest.raises(WeightsError, match="models pull nemotron-english"):
        create(RecognizerSettings("nemotron-english", device="cpu"))
