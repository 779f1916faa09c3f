"""What the page does when a server stalls, an engine is missing, or the page itself is reloaded."""

from time import monotonic

import pytest
import trio

from tests.harness.demo_page import (
    SHORT,
    SHORTEST,
    STATE,
    TURNS,
    demo_page,
    finished,
    from_command,
    transcribe_file,
)
from tests.harness.processes import halted, running

pytestmark = pytest.mark.slow
STATUS = "document.getElementById('state').textContent"
NOTICE = "document.getElementById('notice').textContent"
WORDS = "document.querySelectorAll('.word').length"


@pytest.fixture(scope="module")
def pair():
    """An engine and a gateway; yields the engine's process and the gateway's port."""
    with running("engine", "--model", "english", "--engine-kind", "scripted") as (engine, where):
        with running("gateway", "--asr-endpoint", f"ws://127.0.0.1:{where}") as (_, port):
            yield engine.process, port


async def test_a_stall_is_said_and_costs_no_word(pair):
    """The engine stops in mid-file and for longer than ten seconds after its end: the page says how
    far the server is behind, and waits for its Termination."""
    engine, port = pair
    turns = from_command(port, SHORT)
    async with demo_page(port) as page:
        await transcribe_file(page, SHORT)
        await page.wait_for(f"{WORDS} >= 2")
        with halted(engine):
            await page.wait_for(f"{STATE} === 'finishing'")
            ended = monotonic()
            await page.wait_for(f"/the server is \\d+ s behind/.test({STATUS})")
            await trio.sleep(max(0.0, ended + 10.5 - monotonic()))
            assert await page.evaluate(STATE) == "finishing"
        assert await finished(page) == [turn.transcript for turn in turns]
        assert await page.evaluate(NOTICE) == ""
        (_, received), *further = page.sockets.values()
    assert not further
    assert received[-1]["type"] == "Termination"


async def test_an_engine_that_does_not_answer_is_said_before_begin(pair):
    """SIGSTOP: its kernel accepts the connection, and nobody answers it. The page says so, and the
    command tries again."""
    engine, port = pair
    async with demo_page(port) as page, trio.open_nursery() as nursery:
        shown = []
        with halted(engine):
            nursery.start_soon(command_result, port, shown)
            await page.attach_file("#file", SHORTEST)
            await page.wait_for(f"{STATE} === 'idle' && {NOTICE}")
        assert "does not answer" in await page.evaluate(NOTICE)
        ((_, received),) = page.sockets.values()
        assert [message["type"] for message in received] == ["Error"]
    assert shown


async def command_result(port, shown):
    shown += await trio.to_thread.run_sync(from_command, port, SHORTEST)


async def test_a_reload_asks_and_keeps_the_transcript(pair):
    """In mid-session: the engine stands still, so that the file's end does not come first."""
    engine, port = pair
    turns = [turn.transcript for turn in from_command(port, SHORTEST)]
    async with demo_page(port) as page:
        await transcribe_file(page, SHORT)
        await page.wait_for(f"{WORDS} >= 3")
        with halted(engine):
            await page.click("#transcript")  # browsers ask only for visitors who did something
            (shown,) = await page.evaluate(TURNS)
            await page.reload(asks=True)
        assert page.dialogs == ["beforeunload"]
        await page.wait_for(f"{STATE} === 'idle'")
        (kept,) = await page.evaluate(TURNS)
        assert kept.split()[:3] == shown.split()[:3]
        assert await page.evaluate("/[^\\0]/.test(sessionStorage.getItem('ssasr.waveform') ?? '')")
        await transcribe_file(page, SHORTEST)
        assert await finished(page) == [kept, *turns]
        starts = await page.evaluate(
            "[...document.querySelectorAll('.time')].map(t => t.textContent)"
        )
        assert starts == sorted(starts)
