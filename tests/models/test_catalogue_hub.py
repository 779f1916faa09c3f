"""Pulling from a hub: pinned revisions, digests recorded at first use, mirrors, offline mode,
broken downloads. The hub is a stand-in on localhost, so huggingface_hub itself is real."""

import json
import os
import subprocess
import sys

import pytest
from attrs import evolve
from huggingface_hub import constants

from ssasr.errors import WeightsError
from ssasr.models import catalogue
from ssasr.models.catalogue import Entry
from ssasr.models.sources import HubSource, WeightFile
from tests.harness.hub import COMMIT, REPO, Hub

CONFIG = json.dumps({"model_type": "whisper"}).encode()
WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"x" * 2_000,
    "README.md": b"about",
    "onnx/model.onnx": b"y" * 2_000,
}
PINNED = f"{REPO}@{COMMIT}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSASR_MODELS_DIR", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    with Hub(FILES) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def _entry(monkeypatch, **wrong):
    """Put the stand-in's model into the catalogue, with its digests (or ``wrong`` ones)."""
    files = {name: FILES[name] for name in ("config.json", "model.safetensors")} | wrong
    digests = tuple(
        WeightFile(name, catalogue.hashlib.sha256(content).hexdigest(), len(FILES[name]))
        for name, content in files.items()
    )
    source = (HubSource(REPO, COMMIT),)
    entry = Entry("some", "whisper", "safetensors", ("en",), "MIT", "a test", source, digests)
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    return entry


def test_a_pinned_commit_brings_what_the_model_needs_and_nothing_else(hub):
    files = catalogue.pull(PINNED)
    assert set(files.files) == {"config.json", "model.safetensors"}
    assert files.path("model.safetensors").read_bytes() == WEIGHTS
    assert (files.architecture, files.format) == ("whisper", "safetensors")
    fetched = len(hub.requests)
    assert catalogue.pull(PINNED) == files
    assert catalogue.resolve(PINNED, pull=False) == files
    assert len(hub.requests) == fetched


def test_resolve_pulls_only_when_asked_to(hub):
    with pytest.raises(WeightsError, match=f"run 'ssasr models pull {PINNED}'"):
        catalogue.resolve(PINNED, pull=False)
    assert catalogue.resolve(PINNED, pull=True).path("config.json").read_bytes() == CONFIG


def test_a_repository_of_the_catalogue_is_its_entry(hub, monkeypatch):
    """Its digests are known: no commit need be given, and nothing taken on trust."""
    entry = _entry(monkeypatch)
    assert catalogue.find(REPO) == catalogue.find(PINNED) == entry
    assert catalogue.pull(REPO) == catalogue.resolve("some", pull=False)
    assert catalogue.find(f"{REPO}@{'0' * 40}") != entry


def test_a_repository_without_a_commit_needs_trust_and_is_recorded(hub):
    with pytest.raises(WeightsError, match="--trust-on-first-use"):
        catalogue.pull(REPO)
    assert not hub.requests
    files = catalogue.pull(REPO, trust_on_first_use=True)
    record = json.loads((files.directory / "pinned.json").read_text())
    assert (record["repo"], record["revision"]) == (REPO, COMMIT)
    # The hub changes: what was recorded stays what is loaded.
    hub.files["model.safetensors"] = WEIGHTS[::-1]
    assert catalogue.pull(REPO).path("model.safetensors").read_bytes() == WEIGHTS
    files.path("model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors from .* has the wrong SHA-256"):
        catalogue.pull(REPO)


def test_a_damaged_file_is_refused_and_replaced_by_a_pull(hub, monkeypatch):
    _entry(monkeypatch)
    files = catalogue.pull("some")
    damaged = bytearray(WEIGHTS)
    damaged[77] ^= 1
    files.path("model.safetensors").write_bytes(damaged)
    for pull in (False, True):
        with pytest.raises(WeightsError, match=r"wrong SHA-256 .* 'ssasr models pull some'"):
            catalogue.resolve("some", pull=pull)
    files.path("config.json").write_bytes(CONFIG + b" ")
    catalogue.pull("some")
    assert catalogue.verify("some").path("model.safetensors").read_bytes() == WEIGHTS
    assert files.path("config.json").read_bytes() == CONFIG


def test_wrong_content_never_reaches_the_cache(hub, monkeypatch):
    entry = _entry(monkeypatch, **{"model.safetensors": b"something else"})
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        catalogue.pull("some")
    assert not catalogue.is_here(entry)
    assert not list(catalogue.cache_directory().glob("partial/some/*"))


def test_a_second_source_is_tried(hub, monkeypatch):
    entry = _entry(monkeypatch)
    wrong = HubSource("no/such", COMMIT)
    both = evolve(entry, sources=(wrong, *entry.sources))
    monkeypatch.setattr(catalogue, "entries", lambda: (both,))
    assert catalogue.pull("some").path("config.json").read_bytes() == CONFIG


def test_a_connection_that_breaks_is_taken_up_again(hub):
    hub.break_after = [None, 3_000, 1_000]
    assert catalogue.pull(PINNED).path("model.safetensors").read_bytes() == WEIGHTS
    ranges = [header for name, header, _ in hub.requests if name == "model.safetensors"]
    assert ranges == [None, "bytes=3000-", "bytes=4000-"]


def test_a_broken_pull_is_finished_by_the_next(hub):
    hub.break_after = [None, 3_000, 0]
    with pytest.raises(WeightsError, match=r"broke off at model.safetensors"):
        catalogue.pull(PINNED)
    with pytest.raises(WeightsError, match="are not here"):
        catalogue.resolve(PINNED, pull=False)
    assert catalogue.pull(PINNED).path("model.safetensors").read_bytes() == WEIGHTS
    assert hub.requests[-1][:2] == ("model.safetensors", "bytes=3000-")
    assert not list(catalogue.cache_directory().glob("partial/*"))


def test_progress_reaches_the_end(hub, monkeypatch):
    _entry(monkeypatch)
    seen = []
    catalogue.pull("some", lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONFIG) + len(WEIGHTS),) * 2


@pytest.mark.parametrize(
    ("status", "message"), [(404, "404"), (500, "500"), (401, "401|login"), (429, "429")]
)
def test_a_hub_that_refuses(hub, status, message):
    hub.refuse = status
    with pytest.raises(WeightsError, match=message) as raised:
        catalogue.pull(PINNED)
    assert "\n" not in str(raised.value)


def test_no_hub_at_all(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(WeightsError, match=f"cannot pull {PINNED}") as raised:
        catalogue.pull(PINNED)
    assert "\n" not in str(raised.value)


def test_offline_mode_uses_the_librarys_cache_and_nothing_else(hub, monkeypatch, tmp_path):
    _entry(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set and config.json is not cached"):
        catalogue.pull("some")
    snapshot = tmp_path / "hf" / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes(FILES[name])
    assert catalogue.pull("some").path("model.safetensors").read_bytes() == WEIGHTS
    assert not hub.requests


def test_the_token_of_a_private_mirror_is_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    catalogue.pull(PINNED)
    assert {token for _, _, token in hub.requests} == {"Bearer hf_secret"}


@pytest.mark.slow
def test_two_processes_pull_at_once(hub):
    """The one waits for the other and finds everything there: each file is fetched once."""
    command = [
        sys.executable,
        "-c",
        f"from ssasr.models import catalogue; catalogue.pull({PINNED!r})",
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    names = [name for name, _, _ in hub.requests]
    assert sorted(names) == ["config.json", "model.safetensors"]
    assert catalogue.verify(PINNED).path("model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.slow
def test_the_command_respects_the_variables_of_the_hub_library(hub):
    command = [sys.executable, "-m", "ssasr", "models", "pull", PINNED]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    offline = subprocess.run(
        command, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE" in offline.stderr
    assert len(offline.stderr.splitlines()) == 1
    online = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert online.returncode == 0
    assert "2 files, verified" in online.stdout
