"""The ``ssasr`` command. Imports what a subcommand needs only when it runs: the gateway must start
on a machine without torch.

Exit status: 0 after a clean stop, 1 when the start is refused or a fault is fatal (one line on
stderr says why), 2 for wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from attrs import frozen

from ssasr import __version__
from ssasr.cli import bench, client, models, options, servers
from ssasr.cli.conflicts import check_conflicts
from ssasr.cli.exit_status import exit_status
from ssasr.cli.options import Option, Values
from ssasr.telemetry.logs import configure_logging


@frozen
class Command:
    """One subcommand. ``run`` gets the resolved options and the positional arguments."""

    help: str
    options: tuple[Option, ...]
    run: Callable[[Values, argparse.Namespace], int]
    positionals: Callable[[argparse.ArgumentParser], None] = lambda parser: None


COMMANDS = {
    "serve": Command("gateway and engines in one process", servers.SERVE, servers.run_serve),
    "gateway": Command(
        "the public face alone; the engines are elsewhere", servers.GATEWAY, servers.run_gateway
    ),
    "engine": Command("one model, for gateways elsewhere", servers.ENGINE, servers.run_engine),
    "transcribe": Command(
        "stream a recording and show the words as they come",
        client.TRANSCRIBE,
        client.run_transcribe,
        client.transcribe_arguments,
    ),
    "mic": Command(
        "show what the microphone hears as words",
        client.MIC,
        client.run_mic,
        client.mic_arguments,
    ),
    "bench": Command(
        "measure a server with real-time clients: latency, capacity, and what faults, bad "
        "neighbours or hours of churn do to it",
        bench.OPTIONS,
        bench.run_bench,
        bench.arguments,
    ),
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="ssasr",
        description="Self-hosted streaming speech recognition.",
        epilog="Every option with a value is also an environment variable; the command line wins.",
    )
    root.add_argument("--version", action="version", version=f"ssasr {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        command.positionals(sub)
        options.add_options(sub, command.options)
    models.register(commands)
    return root


def run_command(arguments: Sequence[str] | None) -> int:
    given = parser().parse_args(arguments)
    if given.command == "models":
        return int(given.run(given))
    command = COMMANDS[given.command]
    every = [option for each in COMMANDS.values() for option in each.options]
    options.check_environment(every, os.environ)
    values = options.resolve(command.options, given, os.environ)
    check_conflicts(values)
    configure_logging(
        json=values.get("log_format") == "json", level=str(values.get("log_level", "warning"))
    )
    return command.run(values, given)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    sys.exit(exit_status(lambda: run_command(arguments)))
