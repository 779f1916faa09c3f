"""The demo page in a browser: open, and what tests do on it."""

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ssasr.protocol.codec import decode_server
from ssasr.protocol.messages import Turn
from tests.harness.browser import browser

DATA = Path(__file__).parents[1] / "data"
SHORT = DATA / "speech.flac"
"""5 s, one turn."""
SHORTEST = DATA / "sentence_end.flac"
"""2 s."""
SCRIPTED = ("--engine-kind", "scripted", "--engines", "english,multilingual")
TURNS = "[...document.querySelectorAll('#turns p')].map(p => p.textContent)"
SERVER_GONE = ("net::ERR_", "WebSocket connection to")
"""What Chromium logs of requests to a server that died: refused, reset or without an answer."""
STATE = "document.body?.dataset.state"


@asynccontextmanager
async def demo_page(port, *, expected_errors=(), **options):
    """The page, ready. Afterwards: nothing in the console, nothing asked of any other host."""
    async with browser(**options) as page:
        await page.look()
        await page.open(f"http://localhost:{port}/")
        await page.wait_for(f"{STATE} === 'idle'")
        yield page
        unexpected = [
            line for line in page.console if not any(each in line for each in expected_errors)
        ]
        assert not unexpected, unexpected
        hosts = {urlsplit(each).netloc for each in page.requests if not each.startswith("blob:")}
        assert hosts == {f"localhost:{port}"}


def from_command(port, file):
    """Finished turns of the same file through ``ssasr transcribe``."""
    command = [sys.executable, "-m", "ssasr", "transcribe", "--json", "--pace", "fast",
               "--endpoint", f"ws://localhost:{port}/v3/ws", str(file)]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    messages = [decode_server(line) for line in lines]
    return [each for each in messages if isinstance(each, Turn) and each.end_of_turn]


async def transcribe_file(page, file):
    """Until the page listens to the file."""
    await page.evaluate("document.getElementById('aloud').checked = false")
    async with page.shows(f"{STATE} === 'listening'"):
        await page.attach_file("#file", file)


async def finished(page):
    await page.wait_for(f"{STATE} === 'idle'")
    return await page.evaluate(TURNS)
