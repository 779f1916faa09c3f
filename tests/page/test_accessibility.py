"""axe-core finds nothing on the page, in any of its states, in either theme; and what it does not
look at: the borders of controls and the size of what is hit."""

import json
from pathlib import Path

import pytest

from tests.harness.demo_page import SHORT, STATE, demo_page, finished, transcribe_file
from tests.harness.processes import halted

pytestmark = pytest.mark.slow
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHECK = f"""axe.run({{ runOnly: {json.dumps(TAGS)}, resultTypes: ["violations"] }})
  .then(({{ violations }}) => violations.map(({{ id, nodes }}) =>
    [id, nodes.map((node) => node.html + " " + node.failureSummary)]))"""
SMALL = """[...document.querySelectorAll('button, select, summary, textarea, input')]
  .filter((e) => e.checkVisibility())
  .map((e) => e.closest('label.tick') ?? e)
  .map((e) => [e.outerHTML, e.getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 24)"""
BORDERS = """[...document.querySelectorAll('button:enabled, select:enabled, summary, textarea')]
  .filter((e) => e.checkVisibility() && !e.matches('.primary, :hover'))
  .map((e) => getComputedStyle(e).borderColor)"""
EDGE = """(() => {
  const probe = document.createElement('i');
  probe.style.color = 'var(--edge)';
  document.body.append(probe);
  return getComputedStyle(probe).color;
})()"""
"""Its contrast is measured beside (``test_text_can_be_read_and_nothing_is_cut_off``)."""


async def violations(page):
    """On a large screen in the light theme, and on a phone in the dark one."""
    found = []
    for look in ({}, {"dark": True, "width": 390, "height": 844, "phone": True}):
        await page.look(still=True, **look)
        found += await page.evaluate(CHECK)
    return found


async def test_axe_finds_nothing(serving, tmp_path):
    process, port = serving
    broken = tmp_path / "notes.wav"
    broken.write_text("not audio")
    found = {}
    async with demo_page(port) as page:
        await page.evaluate(AXE.read_text("utf-8"))
        found["idle"] = await violations(page)
        await page.click("summary")
        found["options"] = await violations(page)
        assert await page.evaluate(SMALL) == []
        assert set(await page.evaluate(BORDERS)) == {await page.evaluate(EDGE)}
        await page.click("summary")
        await page.attach_file("#file", broken)
        await page.wait_for("!document.getElementById('notice').hidden")
        found["notice"] = await violations(page)
        await transcribe_file(page, SHORT)
        await page.wait_for("document.querySelector('.final') !== null")
        with halted(process):  # axe may take longer than the file
            found["running"] = await violations(page)
            assert await page.evaluate(STATE) in {"listening", "finishing"}
        await finished(page)
        await page.evaluate("document.querySelector('.word').focus()")
        found["finished"] = await violations(page)
        assert await page.evaluate("!document.getElementById('about-word').hidden")
        await page.click("#captions")
        found["captions"] = await violations(page)
        await page.click("#caption-close")
        await page.evaluate("document.getElementById('key-dialog').showModal()")
        found["key"] = await violations(page)
    assert {state: each for state, each in found.items() if each} == {}
