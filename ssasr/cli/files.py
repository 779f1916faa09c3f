"""What is in the files that options name."""

from pathlib import Path
from typing import Any

from ssasr.cli.conflicts import blamed_on
from ssasr.cli.options import Values
from ssasr.errors import StartRefused, UsageError
from ssasr.gateway.auth.access import parse_keys, read_key_file
from ssasr.gateway.auth.tokens import SHORTEST_SECRET


def api_keys(values: Values) -> str:
    """As ``parse_keys`` reads them. Raises StartRefused if the key file cannot be read, UsageError
    for what is no list of keys."""
    path = values["api_keys_file"]
    with blamed_on(values, "api_keys" if path is None else "api_keys_file"):
        keys = str(values["api_keys"]) if path is None else read_key_file(path)
        parse_keys(keys)
    return keys


def engine_secret(values: Values) -> str | None:
    """None without the option. Raises as ``_credential``."""
    return _credential(values, "engine_secret_file", "engines' secret", SHORTEST_SECRET)


def token_secret(values: Values) -> bytes | None:
    """None without the option. Raises as ``_read``."""
    return _read(values, "token_secret_file", "token secret", SHORTEST_SECRET)


def _read(values: Values, option: str, what: str, least: int = 0) -> bytes | None:
    """The file's content, without white space around it; None without the option. Raises
    UsageError for less than ``least`` bytes, StartRefused if the file cannot be read."""
    path: Path | None = values[option]
    if path is None:
        return None
    with blamed_on(values, option):
        try:
            content = path.read_bytes().strip()
        except OSError as error:
            raise StartRefused(f"cannot read the {what} {path}: {error}") from error
        if len(content) < least:
            raise StartRefused(f"the {what} {path} has less than {least} bytes")
    return content


def _credential(values: Values, option: str, what: str, least: int = 1) -> str | None:
    """As ``_read``, for a header; some editors begin a file with a byte order mark. UsageError for
    what no header may hold: it would fail when the first request is made."""
    content = _read(values, option, what, least)
    if content is None:
        return None
    text = content.decode("utf-8-sig", "replace").strip()
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{values.origins[option]}: the {what} is not one line of printable ASCII")
    return text


def usage_destination(values: Values) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.usage.push import Destination

    if values["usage_push_url"] is None:
        return None
    token = _credential(values, "usage_push_token_file", "push token")
    with blamed_on(values, "usage_push_url"):
        return Destination.parse(values["usage_push_url"], token)


def llm_gateway(values: Values) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.llm import LlmGateway

    if values["llm_gateway_url"] is None:
        return None
    key = _credential(values, "llm_gateway_key_file", "LLM's key")
    with blamed_on(values, "llm_gateway_url"):
        return LlmGateway.parse(values["llm_gateway_url"], key)


def check_certificate(values: Values) -> None:
    """Raises UsageError, and StartRefused if a file cannot be read."""
    from ssasr.runtime.process import tls_context

    with blamed_on(values, "tls_certificate"):
        tls_context(values["tls_certificate"], values["tls_key"])


def webhook_hosts(text: str) -> Any:
    """Raises ValueError."""
    from ssasr.gateway.webhooks import WebhookHosts

    return WebhookHosts.parse(text)


def licence(values: Values) -> Any:
    """Raises UsageError, and StartRefused if a file cannot be read."""
    file, key = values["licence_file"], values["licence_key_file"]
    if file is None:
        return None
    from ssasr.gateway.auth.licence import read_licence

    with blamed_on(values, "licence_file"):
        return read_licence(file, key)
