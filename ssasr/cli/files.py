"""What is in the files that options name."""

from pathlib import Path
from typing import Any

from ssasr.errors import StartRefused, UsageError
from ssasr.gateway.auth.access import read_key_file
from ssasr.gateway.auth.tokens import SHORTEST_SECRET


def api_keys(values: dict[str, Any]) -> str:
    """Raises StartRefused if the key file cannot be used."""
    path = values["api_keys_file"]
    return str(values["api_keys"]) if path is None else read_key_file(Path(path))


def engine_secret(values: dict[str, Any]) -> str | None:
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


def token_secret(values: dict[str, Any]) -> bytes | None:
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


def usage_destination(values: dict[str, Any]) -> Any:
    """Raises UsageError, StartRefused."""
    from ssasr.gateway.usage.push import Destination

    if values["usage_push_url"] is None:
        return None
    if values["usage_dir"] is None:
        raise UsageError("--usage-push-url needs --usage-dir: the records wait there")
    path = values["usage_push_token_file"]
    try:
        token = None if path is None else Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"cannot read the push token {path}: {error}") from error
    return Destination.parse(values["usage_push_url"], token)


def licence(values: dict[str, Any]) -> Any:
    """Raises UsageError, StartRefused."""
    file, key = values["licence_file"], values["licence_key_file"]
    if key is None:
        if file is not None:
            raise UsageError("--licence-file needs --licence-key-file")
        return None
    if file is None:
        raise StartRefused("a licence is needed: --licence-file")
    from ssasr.gateway.auth.licence import read_licence

    return read_licence(Path(file), Path(key))
