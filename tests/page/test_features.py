"""What the page offers beside words: dropped files, sound, speakers, captions, settings."""

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import soundfile

from tests.conftest import JFK
from tests.harness.demo_page import (
    SHORTEST,
    STATE,
    TURNS,
    demo_page,
    finished,
    from_command,
    transcribe_file,
)

pytestmark = pytest.mark.slow
PLAYING = "document.getElementById('play').classList.contains('playing')"
CAPTIONS = "document.getElementById('caption-text').textContent"
FOCUSED = "document.activeElement.id"
WATCH_STATES = """(() => {
  const state = document.getElementById('state');
  window.states = [];
  new MutationObserver(() => window.states.push(state.textContent))
    .observe(state, { childList: true });
})()"""
BADGES = "[...document.querySelectorAll('.who')].map((e) => [e.textContent, e.className])"
RATE = 16_000


async def test_a_dropped_file_is_shown_large_and_its_words_are_played(port):
    (turn,) = from_command(port, SHORTEST)
    async with demo_page(port) as page:
        await page.evaluate("document.getElementById('aloud').checked = false")
        await page.evaluate(WATCH_STATES)
        await page.drop_file(SHORTEST, ("dragEnter", "dragOver"))
        assert not await page.evaluate("document.getElementById('drop').hidden")
        async with page.shows(f"{STATE} === 'listening'"):
            await page.drop_file(SHORTEST, ("drop",))
            assert await page.evaluate("document.getElementById('drop').hidden")
        await page.click("#captions")
        assert await finished(page) == [turn.transcript]
        assert await page.evaluate(CAPTIONS) == turn.transcript
        await page.click("#caption-close")
        assert await page.evaluate(FOCUSED) == "captions"
        # A file is not a microphone, and is not said to be one.
        assert (await page.evaluate("window.states"))[0] == "Reading the file"
        sounding = "document.querySelector('.word.sounding') !== null"
        async with page.shows(PLAYING), page.shows(sounding):
            await page.click("#turns .word")
        await page.wait_for(f"!{PLAYING}")
        async with page.shows(PLAYING):
            await page.evaluate(
                "(() => { const e = document.getElementById('wave');"
                " const clientX = e.getBoundingClientRect().left + 60;"
                " e.dispatchEvent(new MouseEvent('click', { clientX, bubbles: true })) })()"
            )
        await page.evaluate(f"if ({PLAYING}) document.getElementById('play').click()")
        assert not await page.evaluate(PLAYING)


@pytest.fixture
def conversation(tmp_path):
    """Two voices for the scripted engine: a tone, a pause, a tone two octaves higher."""
    seconds = np.arange(3 * RATE) / RATE
    low, high = (0.3 * np.sin(2 * np.pi * pitch * seconds) for pitch in (220, 880))
    path = tmp_path / "conversation.wav"
    pause = np.zeros(int(1.3 * RATE))
    soundfile.write(path, np.concatenate([low, pause, high, pause]), RATE)
    return path


async def test_speakers_have_letters_and_colours(port, conversation):
    async with demo_page(port) as page:
        await page.click("summary")
        await page.click("#speakers")
        await page.click("summary")
        await transcribe_file(page, conversation)
        await finished(page)
        assert await page.evaluate(BADGES) == [["A", "who s0"], ["B", "who s1"]]


async def test_the_microphone_can_be_tried_first(port, spoken):
    """And the focus stays where it is: on what starts and stops."""
    level = "Number(document.getElementById('level').style.getPropertyValue('--level'))"
    async with demo_page(port, microphone=spoken) as page:
        await page.click("#try")
        await page.wait_for(f"{level} > 0.2")
        assert page.sockets == {}, "nothing is sent"
        await page.evaluate("document.getElementById('start').focus()")
        await page.evaluate("document.activeElement.click()")
        await page.wait_for(f"{STATE} === 'listening'")
        assert await page.evaluate(FOCUSED) == "stop"
        await page.evaluate("document.activeElement.click()")
        await finished(page)
        assert await page.evaluate(FOCUSED) == "start"
        assert await page.evaluate("document.getElementById('try').ariaPressed") == "false"


async def test_settings_are_asked_for(port):
    """And key terms may change while a session runs."""
    async with demo_page(port) as page:
        assert await page.evaluate("document.getElementById('redaction-field').hidden")
        terms = "(() => { const e = document.getElementById('keyterms'); e.value = '%s';"
        terms += " e.dispatchEvent(new Event('change')) })()"
        await page.evaluate(terms % "Bennet, Longbourn")
        await transcribe_file(page, JFK)
        await page.wait_for("document.querySelectorAll('.final').length >= 4")
        await page.evaluate(terms % "Bingley")
        shown = " ".join(await finished(page))
        assert "Bennet" in shown or "Longbourn" in shown
        assert "Bingley" in shown
        (address,) = [each for each in page.requests if "/v3/ws" in each]
        query = parse_qs(urlsplit(address).query)
        assert json.loads(query["keyterms_prompt"][0]) == ["Bennet", "Longbourn"]
        assert query["session_heartbeat"] == ["true"]


async def test_an_hour_of_transcript_is_no_burden(port):
    """Nine thousand words are restored, and one more turn changes nothing of the others."""
    async with demo_page(port) as page:
        await page.evaluate("""(() => {
          for (let turn = 0; turn < 600; turn++) {
            const words = Array.from({ length: 15 }, (_, i) =>
              [`word${i}`, turn * 6000 + i * 350, turn * 6000 + i * 350 + 300, 0.9, 1]);
            sessionStorage.setItem(`ssasr.turn.0-0-${turn}`, JSON.stringify({ words }));
          }
        })()""")
        await page.reload()
        await page.wait_for(
            f"{STATE} === 'idle' && document.querySelectorAll('.word').length === 9000"
        )
        await page.look(width=390, height=844, phone=True)
        assert await page.evaluate("document.getElementById('wave').width") <= 390
        await transcribe_file(page, SHORTEST)
        turns = await finished(page)
        assert len(turns) == 601
        assert await page.evaluate(f"{TURNS}[600]") == turns[-1]
        last = "[...document.querySelectorAll('.time')].at(-1).textContent"
        assert await page.evaluate(last) == "59:59"


async def test_modules_by_themselves(port):
    """In one page, which takes longer to open than all of them."""
    async with demo_page(port) as page:
        await sound_is_kept_as_it_was(page)
        await a_revision_changes_speakers_in_place(page)
        await redaction_is_offered_where_the_server_has_it(page)
        await audio_that_is_repeated_is_no_latency(page)


async def sound_is_kept_as_it_was(page):
    """Across pieces, recordings and rates; samples of 48 kHz are thinned to 16 kHz."""
    same, thin, missing = await page.evaluate("""(async () => {
      const { Sound } = await import('/demo/playback.js');
      const sound = new Sound();
      const context = new OfflineAudioContext(1, 1, 16000);
      const all = Int16Array.from({ length: 16000 * 25 }, (_, i) => (i * 7919) % 30000 - 15000);
      for (let at = 0; at < all.length; at += 1280) {
        sound.add(all.slice(at, at + 1280).buffer, 16000, at / 16);
      }
      const read = await sound.read(9500, 20500, context);
      const wanted = all.subarray(9500 * 16, 20500 * 16);
      const same = read.getChannelData(0).every((v, i) => v * 32768 === wanted[i]);
      const fine = Int16Array.from({ length: 4800 }, (_, i) => 100 + i % 3);
      sound.add(fine.buffer, 48000, 25000);
      const thin = (await sound.read(25000, 25100, context)).getChannelData(0);
      const missing = await sound.read(26000, 27000, context);
      return [same, [...new Set(thin)].map((v) => v * 32768), missing];
    })()""")
    assert same
    assert thin == [101]
    assert missing is None


async def a_revision_changes_speakers_in_place(page):
    """Texts and times stay, and a change inside a turn is marked where it begins."""
    shown = await page.evaluate("""(async () => {
      const { Transcript } = await import('/demo/transcript.js');
      const { TranscriptView } = await import('/demo/view.js');
      const [list, panel] = [document.createElement('ol'), document.createElement('div')];
      document.getElementById('transcript').append(list, panel);
      const view = new TranscriptView(list, panel, list, () => {});
      const transcript = new Transcript();
      transcript.begin(0);
      const word = (text, i, speaker) => ({
        text, start: i * 100, end: i * 100 + 90, confidence: 1, word_is_final: true, speaker,
      });
      const words = ['so', 'it', 'is'].map((text, i) => word(text, i, 'A'));
      const turn = { turn_order: 0, words, end_of_turn: true, speaker_label: 'A' };
      view.update(transcript.apply(turn, 0, 0));
      const revised = ['so', 'it', 'is'].map((text, i) => word(text, i, i < 2 ? 'B' : 'C'));
      const revisions = [{ turn_order: 0, speaker_label: 'B', words: revised }];
      for (const each of transcript.revise({ revisions }, 0)) view.update(each);
      const spans = [...list.querySelectorAll('.word')];
      return [list.querySelector('.who').textContent, list.querySelector('p').textContent,
              spans.map((span) => span.dataset.speaker ?? ''),
              transcript.apply(turn, 5000, 1).speaker];
    })()""")
    assert shown == ["B", "so it is", ["", "", "C"], "2A"]


async def redaction_is_offered_where_the_server_has_it(page):
    offered = await page.evaluate("""(async () => {
      const { Settings } = await import('/demo/settings.js');
      const fields = { redactionField: document.getElementById('redaction-field') };
      for (const id of ['model', 'language', 'keyterms', 'speakers', 'redaction', 'device']) {
        fields[id] = document.getElementById(id);
      }
      const settings = new Settings(fields, () => {});
      const names = ['universal-streaming-english', 'whisper-rt'];
      settings.offer({ speech_models: names, redaction: { en: ['person_name'] } });
      fields.redaction.value = 'entity_name';
      return names.map((name) => {
        fields.model.value = name;
        settings.adapt();
        return settings.parameters(16000).redact_pii_sub ?? null;
      });
    })()""")
    assert offered == ["entity_name", None]


async def audio_that_is_repeated_is_no_latency(page):
    """A second session takes over at 2 s: words up to there are not measured, later ones are."""
    measured = await page.evaluate("""(async () => {
      const { AudioClock, Latency } = await import('/demo/latency.js');
      const clock = new AudioClock();
      const latency = new Latency(clock);
      for (let ms = 100; ms <= 3000; ms += 100) clock.captured(100, ms);
      latency.resume(2000);
      const words = [1500, 2000, 2500].map((end) => ({ end, final: true }));
      latency.note({ id: '0-1-0', words, ended: true }, 2600);
      return [latency.first, latency.final, latency.turn];
    })()""")
    assert measured == [[100]] * 3
