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
    keys = str(values["api_keys"]) if path is None else read_key_file(Path(path))
    with blamed_on(values, "api_keys" if path is None else "api_keys_file"):
        parse_keys(keys)
    return keys


def engine_secret(values: Values) -> str | None:
    """Raises StartRefused if the file cannot be used."""
    path = values["engine_secret_file"]
    if path is None:
        return None
    try:
        secret = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the engines' secret {path}: {error}") from error
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
        raise StartRefused(f"the engines' secret {path} is not {SHORTEST_SECRET} letters or more")
    return secret


def token_secret(values: Values) -> bytes | None:
    """Raises StartRefused if the file cannot be used."""
    path = values["token_secret_file"]
    if path is None:
        return None
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
    token = _bearer(values["usage_push_token_file"], "push token")
    with blamed_on(values, "usage_push_url"):
        return Destination.parse(values["usage_push_url"], token)


def llm_gateway(values: Values) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.llm import LlmGateway

    if values["llm_gateway_url"] is None:
        return None
    key = _bearer(values["llm_gateway_key_file"], "LLM's key")
    with blamed_on(values, "llm_gateway_url"):
        return LlmGateway.parse(values["llm_gateway_url"], key)


def _bearer(path: str | None, what: str) -> str | None:
    try:
        return None if path is None else Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the {what} {path}: {error}") from error


def webhook_hosts(text: str) -> Any:
    """Raises ValueError."""
    from ssasr.gateway.webhooks import WebhookHosts

    return WebhookHosts.parse(text)


def licence(values: Values) -> Any:
    """Raises StartRefused."""
    file, key = values["licence_file"], values["licence_key_file"]
    if file is None:
        return None
    from ssasr.gateway.auth.licence import read_licence

    return read_licence(Path(file), Path(key))
