"""``ssasr models list|pull|verify``. rich is imported where it draws: ``pull`` with everything
there must end within a moment."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ssasr.errors import WeightsError
from ssasr.models import catalogue
from ssasr.models.sources import Progress as OnProgress


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the ``models`` command; each sub-command sets ``run``, which takes the parsed arguments
    and gives back the exit status. WeightsError is for the caller to print."""
    models = subparsers.add_parser("models", help="the weights catalogue")
    commands = models.add_subparsers(metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="what there is, and what of it is here")
    listing.set_defaults(run=list_models)
    pull = commands.add_parser("pull", help="fetch weights into the cache")
    pull.add_argument("names", nargs="*", metavar="NAME", help="default: what 'serve' needs")
    pull.add_argument(
        "--trust-on-first-use",
        action="store_true",
        help="take a hub repository without recorded digests as it is now, and record them",
    )
    pull.set_defaults(run=pull_models)
    verify = commands.add_parser("verify", help="check the digests of what is here")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that is here")
    verify.set_defaults(run=verify_models)


def list_models(_args: argparse.Namespace) -> int:
    """Print the catalogue."""
    from rich.console import Console
    from rich.table import Column, Table

    name = Column("name", no_wrap=True)  # to be typed, therefore in one piece
    table = Table(name, "also", "size", "here", "licence", "for", "what", box=None, pad_edge=False)
    for entry in catalogue.entries():
        here = "yes" if catalogue.is_here(entry) else "no"
        size = f"{entry.size / 1e6:.0f} MB" if entry.size else "?"
        also = ", ".join(entry.aliases)
        table.add_row(entry.name, also, size, here, entry.licence, entry.machine, entry.about)
    console = Console()
    console.print(table)
    console.print(f"cache: {catalogue.cache_directory()}", highlight=False, soft_wrap=True)
    return 0


def pull_models(args: argparse.Namespace) -> int:
    """Fetch each model; the first that fails ends it."""
    for name in args.names or [entry.name for entry in catalogue.defaults()]:
        with _bar(name) as progress:
            files = catalogue.pull(name, progress, trust_on_first_use=args.trust_on_first_use)
        _say(f"{files.name}: {len(files.files)} files, verified, in {files.directory}")
    return 0


def verify_models(args: argparse.Namespace) -> int:
    """Check each model, all of them even if one is wrong; 1 if one is, or if nothing is here."""
    names = args.names or [e.name for e in catalogue.entries() if catalogue.is_here(e)]
    if not names:
        raise WeightsError(f"no weights in {catalogue.cache_directory()}")
    wrong = 0
    for name in names:
        try:
            files = catalogue.verify(name)
        except WeightsError as error:
            wrong += 1
            _say(f"{name}: {error}")
        else:
            _say(f"{name}: {len(files.files)} files as they should be")
    return 1 if wrong else 0


@contextmanager
def _bar(name: str) -> Iterator[OnProgress]:
    """A progress bar that appears when something is really downloaded; on a terminal it moves,
    elsewhere (a build log) one line says what is being fetched."""
    with ExitStack() as shown:
        show: OnProgress | None = None

        def progress(done: int, total: int) -> None:
            nonlocal show
            if show is None:
                show = _moving_bar(name, shown) if sys.stderr.isatty() else _one_line(name, total)
            show(done, total)

        yield progress


def _moving_bar(name: str, shown: ExitStack) -> OnProgress:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn(name),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    bars = shown.enter_context(progress.Progress(*columns, console=Console(stderr=True)))
    task = bars.add_task(name, total=None)
    return lambda done, total: bars.update(task, completed=done, total=total or None)


def _one_line(name: str, total: int) -> OnProgress:
    print(f"{name}: fetching {total / 1e6:.0f} MB", file=sys.stderr, flush=True)  # noqa: T201
    return lambda _done, _total: None


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is the command's output
