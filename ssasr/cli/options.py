"""Command-line options that are also environment variables ``SSASR_…``.

An option given on the command line wins over the environment. An ``SSASR_`` variable that no
command knows is an error: a typo in a deployment must not be a silent default.
"""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ssasr.errors import UsageError
from ssasr.protocol.speech_models import SPEECH_MODELS, EngineKind

PREFIX = "SSASR_"
NOT_OPTIONS = frozenset({"SSASR_CACHE", "SSASR_MODELS_DIR"})
"""Variables read elsewhere: where the weights are (``ssasr.models.catalogue``)."""


@frozen
class Option:
    """``parse`` raises ValueError with a readable message."""

    flag: str
    help: str
    default: object = None
    parse: Callable[[str], object] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None

    @property
    def dest(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        return variable(self.dest)

    def value(self, text: str, origin: str) -> object:
        """Raises UsageError naming ``origin``, the flag or the variable."""
        if self.choices is not None and (text := text.lower()) not in self.choices:
            raise UsageError(f"{origin}: {text!r} is not one of {', '.join(self.choices)}")
        try:
            return self.parse(text)
        except ValueError as error:
            raise UsageError(f"{origin}: {error}") from None


def switch(flag: str, text: str, default: bool) -> Option:
    return Option(flag, text, default, boolean, "BOOL")


def path(flag: str, text: str, metavar: str = "FILE") -> Option:
    return Option(flag, text, None, location, metavar)


def url(flag: str, text: str, default: str | None = None) -> Option:
    return Option(flag, text, default, metavar="URL")


def variable(dest: str) -> str:
    return PREFIX + dest.upper()


class Values(dict[str, Any]):
    """What every option is, by ``dest``. ``origins``: the flag or variable of those that were
    given."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add each option with no default of argparse's own, so that ``resolve`` can tell what was
    given."""
    for option in options:
        text = f"{option.help} [${option.variable}"
        if option.default not in (None, (), {}):
            text += f"; default {_shown(option.default)}"
        parser.add_argument(
            option.flag, default=None, metavar=option.metavar, help=(text + "]").replace("%", "%%")
        )


def resolve(
    options: Iterable[Option], given: argparse.Namespace, environment: Mapping[str, str]
) -> Values:
    """Raises UsageError."""
    values = Values()
    for option in options:
        text, origin = vars(given)[option.dest], option.flag
        if text is None:
            text, origin = environment.get(option.variable), option.variable
        if text is None:
            values[option.dest] = option.default
        else:
            values[option.dest] = option.value(text, origin)
            values.origins[option.dest] = origin
    return values


def check_environment(options: Iterable[Option], environment: Mapping[str, str]) -> None:
    """Raises UsageError for ``SSASR_`` variables that mean nothing."""
    known = {option.variable for option in options} | NOT_OPTIONS
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise UsageError(f"unknown environment variable {', '.join(unknown)}")


def port(text: str) -> int:
    number = _integer(text)
    if not 0 <= number <= 65_535:
        raise ValueError(f"{text} is not a port (0 to 65535)")
    return number


def count(text: str) -> int:
    number = _integer(text)
    if number < 1:
        raise ValueError(f"{text} is not a positive number")
    return number


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds")
    return number


def boolean(text: str) -> bool:
    """For options that are switched by a value, as environment variables must be."""
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"{text!r} is not true or false")


def location(text: str) -> Path:
    if not text:
        raise ValueError("no path")
    return Path(text)


def names(text: str) -> tuple[str, ...]:
    """Comma-separated, no empty entries."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise ValueError(f"{text!r} is not a comma-separated list")
    return parts


def model(text: str) -> str:
    """The two kinds of engine in any case; another name, or a path, as it is written."""
    kind = text.lower()
    return kind if kind in {each.value for each in EngineKind} else text


def engines(text: str) -> tuple[str, ...]:
    """Kinds, each once."""
    kinds = names(text.lower())
    known = [each.value for each in EngineKind]
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"{kind!r} is not one of {', '.join(known)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"{text!r} names one twice")
    return kinds


def device(text: str) -> str:
    wanted = text.lower()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise ValueError(f"{text!r} is not auto, cpu or cuda:N")
    return wanted


def aliases(text: str) -> dict[str, str]:
    """``NAME=MODEL``, with commas between."""
    pairs = [each.partition("=") for each in text.split(",") if each.strip()]
    found = {name.strip(): model.strip() for name, _, model in pairs}
    for name, model in found.items():
        if not name or model not in SPEECH_MODELS:
            known = ", ".join(SPEECH_MODELS)
            raise ValueError(f"{name}={model} is not NAME=MODEL with one of the models {known}")
    return found


def _shown(default: object) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
