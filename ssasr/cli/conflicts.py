"""Options that do not fit together. Nobody has to guess which of two is obeyed: the start is
refused, and the message names what was given, the flag or the variable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from ssasr.cli.options import Values, variable
from ssasr.errors import StartRefused, UsageError


@frozen
class Needs:
    """``option`` is of no use without ``other``."""

    option: str
    other: str
    why: str


@frozen
class Excludes:
    """Not both; ``when``: of which values of ``other`` that holds."""

    option: str
    other: str
    why: str
    when: Callable[[Any], bool] = bool


RULES = (
    Needs("tls_key", "tls_certificate", "it belongs to one"),
    Excludes("api_keys", "api_keys_file", "keys are in one place"),
    Excludes(
        "max_connections_per_address", "workers", "it counts in one process", lambda n: n > 1
    ),
    Needs("usage_push_url", "usage_dir", "the records wait there"),
    Needs("usage_push_token_file", "usage_push_url", "nothing is pushed"),
    Needs("webhook_hosts", "webhook_dir", "they wait there until they are taken"),
    Needs("webhook_dir", "webhook_hosts", "nothing may be posted"),
    Needs("llm_gateway_key_file", "llm_gateway_url", "nobody is asked"),
    Needs("redaction_model", "redaction", "nothing is redacted"),
    Needs("licence_file", "licence_key_file", "it could not be verified"),
    Needs("licence_key_file", "licence_file", "the vendor's key asks for a licence"),
    Excludes(
        "asr_ca", "asr_endpoint", "a CA is of use with wss:// only",
        lambda url: not url.startswith("wss:"),
    ),
    Excludes("chunk_ms", "engine_kind", "it is for a model", lambda kind: kind == "scripted"),
)  # fmt: skip


def check_conflicts(values: Values) -> None:
    """Raises UsageError."""
    port = values.get("port")
    if port and values.get("metrics_port") == port:
        raise UsageError(f"{values.origins['metrics_port']} and --port: both are {port}")
    for rule in RULES:
        if rule.option not in values.origins or rule.other not in values:
            continue
        first, other = values.origins[rule.option], values[rule.other]
        match rule:
            case Needs() if not other:
                second = f"--{rule.other.replace('_', '-')} (or {variable(rule.other)})"
                raise UsageError(f"{first} needs {second}: {rule.why}")
            case Excludes() if rule.other in values.origins and rule.when(other):
                raise UsageError(f"{first} and {values.origins[rule.other]}: {rule.why}")


@contextmanager
def blamed_on(values: Values, option: str) -> Iterator[None]:
    """What is wrong with a value is said with its flag or variable. One that turns out to be no
    such thing is wrong usage (UsageError); a file that cannot be read is not (StartRefused)."""
    try:
        yield
    except StartRefused as error:
        origin = values.origins.get(option)
        text = str(error) if origin is None else f"{origin}: {error}"
        unread = type(error.__cause__) in (FileNotFoundError, PermissionError, IsADirectoryError)
        raise (StartRefused if unread else UsageError)(text) from error
