"""What the server itself counts: ``GET /metrics`` beside the endpoint."""

from http.client import HTTPException
from urllib.parse import urlsplit
from urllib.request import urlopen

import trio

ANSWER_SECONDS = 10.0
ENDS = "ssasr_session_ends_total"

Counts = dict[str, float]
"""Values by name, with the labels as they are written."""


async def read_metrics(endpoint: str) -> Counts | None:
    """Of the gateway behind a ws or wss URL; None where it shows none there."""
    parts = urlsplit(endpoint)
    scheme = "https" if parts.scheme == "wss" else "http"
    url = parts._replace(scheme=scheme, path="/metrics", query="").geturl()
    try:
        text = await trio.to_thread.run_sync(_get, url, abandon_on_cancel=True)
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}
    except (OSError, HTTPException, ValueError):
        return None


def _get(url: str) -> str:
    with urlopen(url, timeout=ANSWER_SECONDS) as answer:
        return str(answer.read().decode())


def session_ends(before: Counts | None, after: Counts | None) -> Counts | None:
    """Sessions that ended between two readings, by cause; None if one of them is missing."""
    if before is None or after is None:
        return None
    found: Counts = {}
    for name, value in after.items():
        if name.startswith(f'{ENDS}{{cause="') and (new := value - before.get(name, 0.0)):
            cause = name.split('"')[1]
            found[cause] = found.get(cause, 0.0) + new
    return found
