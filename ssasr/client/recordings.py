"""``ssasr transcribe`` for any number of recordings: which files are meant, where their transcripts
go, and one after the other."""

import glob
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import define, evolve, field, frozen
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ssasr.client.connection import ClientError
from ssasr.client.sound import STDIN, open_sound, quiet_decoders
from ssasr.client.subtitles import FORMATS, SUFFIXES, revised
from ssasr.client.transcribe import Request, stream_file, transcribe
from ssasr.errors import UsageError
from ssasr.protocol.messages import ServerMessage, SpeakerRevision, Turn
from ssasr.runtime.process import run

RECORDINGS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64",
)  # fmt: skip
"""Suffixes of what is taken from a directory; a file that is named is taken whatever its name."""


@frozen
class OutputChoice:
    """What the command line asks for. ``output``: a file, a directory, or None: the screen.
    ``format``: of the transcript, or None: by the output's suffix."""

    inputs: tuple[str, ...]
    output: str | None
    format: str | None
    as_json: bool


@frozen
class Recording:
    """``name``: where it is beneath the directory or pattern that was given; where its transcript
    goes beneath the output."""

    file: Path
    name: Path


@frozen
class Job:
    """``output`` None: standard output."""

    file: Path
    output: Path | None
    format: str


@define
class Collected:
    """The finished turns of one recording; ``on_words`` is called with how far the words have come,
    in milliseconds."""

    on_words: Callable[[int], None] = lambda _: None
    turns: list[Turn] = field(factory=list)
    open_turn: Turn | None = None
    """One that has not ended, in its last state."""

    def so_far(self) -> list[Turn]:
        return self.turns + ([self.open_turn] if self.open_turn else [])

    def show(self, message: ServerMessage) -> None:
        if isinstance(message, SpeakerRevision):
            self.turns = revised(self.turns, message)
        if isinstance(message, Turn) and message.words:
            self.on_words(message.words[-1].end)
            self.open_turn = None if message.end_of_turn else message
            if message.end_of_turn:
                # The formatted end of a turn comes after the plain one, if both come.
                if self.turns and self.turns[-1].turn_order == message.turn_order:
                    self.turns.pop()
                self.turns.append(message)


def find_files(inputs: Iterable[str]) -> list[Recording]:
    """Files as they are, directories searched to the bottom, patterns expanded; each once, in
    order; ``-`` is standard input. Raises ClientError for what gives nothing."""
    found: dict[Path, Recording] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            root, files = path, [each for each in path.rglob("*") if _is_recording(each)]
        elif text == STDIN or path.exists() or not glob.has_magic(text):
            root, files = path.parent, [path]  # what does not exist is said when it is opened
        else:
            root = _without_magic(path)
            files = [Path(each) for each in glob.glob(text, recursive=True) if Path(each).is_file()]
        if not files:
            raise ClientError(f"{text}: no recording there")
        for file in sorted(files):
            found.setdefault(file, Recording(file, file.relative_to(root)))
    return list(found.values())


def _without_magic(pattern: Path) -> Path:
    """The folder that the pattern searches."""
    return next(each for each in pattern.parents if not glob.has_magic(str(each)))


def _is_recording(path: Path) -> bool:
    """``._talk.wav`` is what macOS keeps beside ``talk.wav`` on a foreign disk: no sound."""
    return path.suffix.lower() in RECORDINGS and not path.name.startswith("._")


def plan(recordings: Sequence[Recording], choice: OutputChoice) -> list[Job]:
    """Raises UsageError where two transcripts would be the same file, several recordings one, or
    the format is unknown."""
    if choice.output is None:
        return [Job(each.file, None, choice.format or "text") for each in recordings]
    output = Path(choice.output)
    if output.is_dir() or choice.output.endswith(("/", "\\")):
        return _beneath(output, recordings, choice.format or "text")
    if len(recordings) > 1:
        if output.exists() or output.suffix:
            raise UsageError(
                f"--output {output}: {len(recordings)} recordings need a directory; "
                f"{output}/ makes one of that name"
            )
        return _beneath(output, recordings, choice.format or "text")
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()} | {"": "text"}
    chosen = choice.format or by_suffix.get(output.suffix.lower())
    if chosen is None:
        known = ", ".join(SUFFIXES.values())
        raise UsageError(f"--output {output}: not one of {known}; --format says what to write")
    return [Job(recordings[0].file, output, chosen)]


def _beneath(output: Path, recordings: Sequence[Recording], form: str) -> list[Job]:
    """In folders like the recordings'."""
    jobs: dict[Path, Job] = {}
    for each in recordings:
        path = output / each.name.with_suffix(SUFFIXES[form])
        other = jobs.setdefault(path, Job(each.file, path, form))
        if other.file != each.file:
            raise UsageError(f"--output: {other.file} and {each.file} would both be {path}")
    return list(jobs.values())


def transcribe_all(choice: OutputChoice, request: Request) -> int:
    """The exit status: 1 if any recording failed, each with a line on stderr. ``request.file`` is
    replaced. Raises ClientError, UsageError."""
    found = find_files(choice.inputs)
    if choice.as_json and (choice.output or choice.format):
        raise UsageError("--json shows the messages as they come; it has no --output or --format")
    with quiet_decoders():
        if choice.output or choice.format:
            return _write_all(plan(found, choice), request)
        files = [each.file for each in found]
        return _each(files, lambda file: _show(file, request, choice, alone=len(files) == 1))


def _each(files: Sequence[Path], one: Callable[[Path], None]) -> int:
    if len(files) == 1:
        one(files[0])
        return 0
    failed = 0
    for file in files:
        try:
            one(file)
        except ClientError as error:
            failed += 1
            sys.stderr.write(f"ssasr: {error}\n")
    return 1 if failed else 0


def _show(file: Path, request: Request, choice: OutputChoice, *, alone: bool) -> None:
    if not alone and not choice.as_json:
        sys.stdout.write(f"\n{file}\n")
        sys.stdout.flush()
    transcribe(request.of(str(file)), as_json=choice.as_json)


def _write_all(jobs: Sequence[Job], request: Request) -> int:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        by_file = {job.file: job for job in jobs}

        def one(file: Path) -> None:
            job = by_file[file]
            length = _milliseconds(file)
            task = progress.add_task(file.name, total=length)
            collected = Collected(lambda ms: progress.update(task, completed=ms))
            try:
                run(lambda: stream_file(request.of(str(file)), collected.show))
            except (ClientError, KeyboardInterrupt):
                _write_partial(job, collected.so_far())
                raise
            progress.update(task, completed=length)
            _write(job, FORMATS[job.format](collected.turns))
            if job.output is not None:
                progress.console.print(f"{file} → {job.output}", highlight=False, soft_wrap=True)

        return _each([job.file for job in jobs], one)


def _milliseconds(file: Path) -> int | None:
    """None: not known yet. Raises ClientError."""
    if not file.is_file():
        return None  # a pipe is opened once
    seconds = open_sound(str(file)).seconds
    return None if seconds is None else int(1_000 * seconds)


def _write_partial(job: Job, turns: Sequence[Turn]) -> None:
    """What was received before it went wrong, under a name that says so."""
    if not turns:
        sys.stderr.write(f"ssasr: {job.file}: nothing was received\n")
        return
    output = job.output and job.output.with_stem(job.output.stem + ".partial")
    _write(evolve(job, output=output), FORMATS[job.format](turns))
    where = "standard output" if output is None else str(output)
    sys.stderr.write(f"ssasr: {job.file}: incomplete; what was received is in {where}\n")


def _write(job: Job, text: str) -> None:
    if job.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClientError(f"cannot write {job.output}: {error.strerror}") from None
