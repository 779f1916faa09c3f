"""What is in the files that options name."""

from pathlib import Path
from typing import Any

from ssasr.cli.conflicts import blamed_on
from ssasr.cli.options import Values
from ssasr.errors import StartRefused
from ssasr.gateway.auth.access import parse_keys, read_key_file
from ssasr.gateway.auth.tokens import SHORTEST_SECRET


def api_keys(values: Values) -> str:
    """As ``parse_keys`` reads them. Raises StartRefused if the key file cannot be read, UsageError
    for what is no list of keys."""
    path = values["api_keys_file"]
    with blamed_on(values, "api_keys" if path is None else "api_keys_file"):
        keys = str(values["api_keys"]) if path is None else read_key_file(Path(path))
        parse_keys(keys)
    return keys


def engine_secret(values: Values) -> str | None:
    """Raises UsageError, and StartRefused if the file cannot be read."""
    path = values["engine_secret_file"]
    if path is None:
        return None
    with blamed_on(values, "engine_secret_file"):
        return _engine_secret(path)


def _engine_secret(path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the engines' secret {path}: {error}") from error
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
        raise StartRefused(f"the engines' secret {path} is not {SHORTEST_SECRET} letters or more")
    return secret


def token_secret(values: Values) -> bytes | None:
    """Raises UsageError, and StartRefused if the file cannot be read."""
    path = values["token_secret_file"]
    if path is None:
        return None
    with blamed_on(values, "token_secret_file"):
        return _token_secret(path)


def _token_secret(path: str) -> bytes:
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise StartRefused(f"cannot read the token secret {path}: {error}") from error
    if len(secret) < SHORTEST_SECRET:
        raise StartRefused(f"the token secret {path} has less than {SHORTEST_SECRET} bytes")
    return secret


def usage_destination(values: Values) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.usage.push import Destination

    if values["usage_push_url"] is None:
        return None
    token = _bearer(values, "usage_push_token_file", "push token")
    with blamed_on(values, "usage_push_url"):
        return Destination.parse(values["usage_push_url"], token)


def llm_gateway(values: Values) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.llm import LlmGateway

    if values["llm_gateway_url"] is None:
        return None
    key = _bearer(values, "llm_gateway_key_file", "LLM's key")
    with blamed_on(values, "llm_gateway_url"):
        return LlmGateway.parse(values["llm_gateway_url"], key)


def _bearer(values: Values, option: str, what: str) -> str | None:
    path = values[option]
    with blamed_on(values, option):
        try:
            return None if path is None else Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartRefused(f"cannot read the {what} {path}: {error}") from error


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
        return read_licence(Path(file), Path(key))
