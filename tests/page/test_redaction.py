"""Personal data on the page: hidden where it is shown, kept and sent. The scripted engine says a
session's key terms, so that marks are spoken."""

import json

import pytest

from tests.harness.demo_page import SCRIPTED, SHORT, demo_page, finished, transcribe_file
from tests.harness.processes import server

pytestmark = pytest.mark.slow
MARKS = ("marked.person@example.com", "4111111111111111")
CHOOSE = """(() => {
  for (const [id, value] of [['redaction', %s], ['keyterms', %s]]) {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event('change', { bubbles: true }));
  }
})()"""
KEPT = "JSON.stringify([document.body.innerHTML, { ...sessionStorage }, { ...localStorage }])"


async def shown_on_the_page(page, redaction):
    """The text of the turns, and everything that the page holds and was sent."""
    await page.evaluate(CHOOSE % (json.dumps(redaction), json.dumps(", ".join(MARKS))))
    await transcribe_file(page, SHORT)
    shown = " ".join(await finished(page))
    kept = json.loads(await page.evaluate(KEPT))
    received = [text for _, texts in page.sockets.values() for text in texts]
    return shown, json.dumps([kept, received])


async def test_chosen_on_the_page():
    with server(*SCRIPTED, "--redaction", "true") as (_, port):
        async with demo_page(port) as page:
            shown, _ = await shown_on_the_page(page, "")
            assert any(mark in shown for mark in MARKS), "the marks are spoken"
        async with demo_page(port) as page:
            assert not await page.evaluate("document.getElementById('redaction-field').hidden")
            shown, everything = await shown_on_the_page(page, "entity_name")
            assert "[EMAIL_ADDRESS]" in shown
            for mark in MARKS:
                assert mark not in shown
                assert mark not in everything.replace(json.dumps(", ".join(MARKS))[1:-1], "")
