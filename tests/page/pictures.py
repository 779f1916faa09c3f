"""``python -m tests.page.pictures docs/images``: the pictures of the demo page in the documents.

Two voices go through the real models; what is shown is right, word for word, or it is tried again.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import trio

from tests.conftest import JFK
from tests.harness.demo_page import (
    SHORT,
    SHORTEST,
    TURNS,
    demo_page,
    finished,
    transcribe_file,
)
from tests.harness.processes import server

SAID = (
    "And so my fellow Americans has never been surpassed "
    "produced the block books which were the immediate predecessors of the true printed book"
)
BOTH = (
    "document.querySelectorAll('.word.final').length >= 9"
    " && document.querySelectorAll('.word:not(.final)').length >= 3"
)
PHONE = {"width": 390, "height": 844, "scale": 2, "phone": True}
ATTEMPTS = 5


def conversation(folder):
    """The beginning of one recording and two of another voice, with pauses."""
    rate = 16_000
    first, second, third = (soundfile.read(each)[0] for each in (JFK, SHORTEST, SHORT))
    pause = np.zeros(int(0.9 * rate))
    parts = [first[: int(2.6 * rate)], pause, second, pause, third, pause]
    path = folder / "conversation.wav"
    soundfile.write(path, np.concatenate(parts), rate)
    return path


def bare(text):
    return re.sub(r"[^a-z ]", "", text.lower())


async def shown(page):
    return " ".join(await page.evaluate(TURNS))


async def attempt(page, recording, folder):
    """False: something on it is wrong, or there was no moment with both kinds of words."""
    await page.look()
    await transcribe_file(page, recording)
    state = "document.body.dataset.state"
    await page.wait_for(f"{BOTH} || {state} === 'idle'", 60)
    await page.screenshot(folder / "demo-page.png")
    there = await page.evaluate(BOTH) and bare(SAID).startswith(bare(await shown(page)))
    await finished(page, 60)
    if not there or bare(await shown(page)) != bare(SAID):
        await page.click("#clear")
        return False
    for name, look in (("dark", {"dark": True}), ("phone", PHONE)):
        await page.look(still=True, **look)
        await trio.sleep(0.5)  # a picture is drawn a moment later
        await page.screenshot(folder / f"demo-page-{name}.png")
    return True


async def main(folder):
    with (
        tempfile.TemporaryDirectory() as scratch,
        server("--engines", "english", "--speakers", "true") as (_, port),
    ):
        async with demo_page(port) as page:
            await page.evaluate("document.getElementById('speakers').checked = true")
            recording = conversation(Path(scratch))
            for _ in range(ATTEMPTS):
                if await attempt(page, recording, folder):
                    return
    sys.exit("the page never showed the recording without an error")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
