// Wires the page: controls, one recording at a time, and what is known about it.

import { Behind } from "./behind.js";
import { CaptionView } from "./caption_view.js";
import { acceptDrops } from "./drop.js";
import { copy, download } from "./files.js";
import { join } from "./joining.js";
import { AudioClock, Latency } from "./latency.js";
import { $, STATES, announce, askKey, figures, meter, notice } from "./panel.js";
import { Trouble } from "./plain_words.js";
import { Player, Sound } from "./playback.js";
import { KeyNeeded, Session } from "./session.js";
import { Settings } from "./settings.js";
import { Microphone, Recording } from "./sources.js";
import { Storage } from "./storage.js";
import { Timeline } from "./timeline.js";
import { Transcript, wordAt } from "./transcript.js";
import { Trial } from "./trial.js";
import { TranscriptView } from "./view.js";

const BEFORE_MS = 80; // of a word, and after it, when it is played
const AFTER_MS = 120;

const view = new TranscriptView($("turns"), $("about-word"), $("transcript"), playWord);
const timeline = new Timeline($("timeline-scroller"), $("wave"), $("timeline-length"), playFrom);
const captions = new CaptionView($("caption-view"), $("caption-text"));
const storage = new Storage(() => notice(new Trouble("unkept").message));
const trial = new Trial($("try"), $("device"), $("device-field"));
const settings = new Settings(
  {
    ...Object.fromEntries(
      ["model", "language", "keyterms", "speakers", "redaction", "device"].map((id) => [id, $(id)]),
    ),
    redactionField: $("redaction-field"),
  },
  (configuration) => running?.session?.configure(configuration),
);
let sound = new Sound();
let player = new Player(sound, moved);
let transcript = new Transcript();
let clock = new AudioClock();
let latency = new Latency(clock);
let running = null; // { source, session, behind }
let key = ""; // in memory only: it is gone with the page

// -- the recording ---------------------------------------------------------------------------------

async function begin(makeSource) {
  if (running) return;
  player.stop();
  const mine = { source: makeSource(), session: null, behind: null };
  running = mine;
  notice("");
  show("asking", mine.source.waiting);
  try {
    await mine.source.open();
    if (running !== mine) return mine.source.stop();
    another();
    mine.session = new Session(settings.parameters(mine.source.rate), key, sessionEvents(mine));
    await mine.session.start();
    if (running !== mine) return mine.source.stop();
    mine.source.ended = () => sourceEnded(mine);
    mine.source.start((chunk) => audio(mine, chunk));
  } catch (error) {
    const needsKey = error instanceof KeyNeeded;
    const wrong = needsKey && key !== "";
    stopped(mine, needsKey ? (wrong ? new Trouble("key") : null) : error);
    if (needsKey) {
      askKey((given) => {
        key = given;
        begin(makeSource);
      });
    }
  }
}

/** A recording begins where the one before it ended. */
function another() {
  transcript.begin(Math.max(clock.recorded, transcript.end));
  clock = new AudioClock(transcript.base);
  latency = new Latency(clock);
  figures(latency);
}

/** Milliseconds of this recording so far. */
const captured = () => clock.recorded - transcript.base;

function audio(mine, { pcm, level, peak }) {
  const { rate } = mine.source;
  const start = clock.recorded;
  clock.captured((pcm.byteLength / 2 / rate) * 1000, performance.now());
  mine.session.audio(pcm);
  sound.add(pcm, rate, start);
  timeline.add(clock.recorded, level);
  meter(level, peak);
  $("duration").textContent = `${(captured() / 1000).toFixed(0)} s`;
}

function sessionEvents(mine) {
  return {
    state(name) {
      if (name === "reconnecting") changed(transcript.settle());
      show(name);
    },
    message(message, offset, number) {
      const now = performance.now();
      mine.behind ??= new Behind(clock, now);
      mine.behind.note(message, offset + transcript.base, now);
      if (message.type === "Begin") begun(message, number);
      if (message.type === "Turn") turnChanged(transcript.apply(message, offset, number), now);
      if (message.type === "SpeakerRevision") changed(transcript.revise(message, number));
    },
    ended: (trouble) => stopped(mine, trouble),
  };
}

function begun({ id, configuration }, number) {
  $("session").textContent = id.slice(0, 8);
  if (number > 0) latency.resume(clock.recorded);
  if (configuration?.speaker_labels === false) notice(new Trouble("speakers").message);
}

function turnChanged(turn, now) {
  latency.note(turn, now);
  changed([turn]);
  figures(latency);
  keeping();
  if (turn.ended) announce(join(turn.words.map((word) => word.text)));
}

function changed(turns) {
  for (const turn of turns) {
    view.update(turn);
    storage.note(turn);
  }
  timeline.show(transcript.turns);
  captions.show(transcript.turns);
}

function sourceEnded(mine) {
  if (mine.source instanceof Microphone) notice(new Trouble("unplugged").message);
  mine.session.finish();
}

/** The second time: do not wait for the last words. */
function finish() {
  if (!running) return;
  if (running.session?.finishing) return running.session.end(null);
  running.source.stop();
  meter(0, 0);
  if (running.session) running.session.finish();
  else stopped(running, null);
}

function stopped(mine, trouble) {
  if (running !== mine) return;
  running = null;
  mine.source.stop();
  changed(transcript.settle());
  storage.flush();
  meter(0, 0);
  show("idle");
  if (trouble) notice(trouble.message);
  else if (mine.session?.lostSeconds) notice(new Trouble("lost", mine.session.lostSeconds).message);
}

// -- its sources -----------------------------------------------------------------------------------

function start() {
  trial.stop();
  begin(() => new Microphone($("device").value)).then(() => trial.offerDevices());
}

function file(given) {
  trial.stop();
  if (running) notice("Stop the recording first.");
  else begin(() => new Recording(given, $("aloud").checked));
}

// -- listening again -------------------------------------------------------------------------------

/** Not while the microphone would hear it. */
const playable = (ms) => !(running?.source instanceof Microphone) && !trial.open && sound.has(ms);

function playWord(word) {
  const from = Math.max(0, word.start - BEFORE_MS);
  if (playable(word.start)) player.play(from, word.end + AFTER_MS);
}

function playFrom(ms) {
  if (playable(ms)) player.play(ms, clock.recorded);
}

function moved(ms) {
  timeline.move(ms);
  const [turn, index] = ms === null ? [] : wordAt(transcript.turns, ms);
  view.mark(turn, index);
  $("play").setAttribute("aria-label", ms === null ? "Play" : "Stop playing");
  $("play").classList.toggle("playing", ms !== null);
}

// -- what the page shows ---------------------------------------------------------------------------

function show(state, text = STATES[state]) {
  const busy = state !== "idle";
  const focused = document.activeElement;
  document.body.dataset.state = state;
  document.body.classList.remove("late");
  $("state").textContent = text;
  $("start").hidden = busy;
  $("stop").hidden = !busy;
  $("stop-text").textContent = state === "finishing" ? "Do not wait" : "Stop";
  $("endpoint").hidden = state !== "listening";
  $("try").hidden = busy;
  $("from-file").hidden = busy;
  settings.lock(busy);
  keeping();
  if (busy && [$("start"), $("file-button")].includes(focused)) $("stop").focus();
  if (!busy && focused === $("stop")) $("start").focus();
  if (state === "listening" || state === "reconnecting") announce(STATES[state]);
}

/** Whether the server keeps up; nothing else tells a stalled one from one that has nothing to say. */
function watch() {
  const { state } = document.body.dataset;
  if (!running?.behind || !["listening", "finishing"].includes(state)) return;
  const seconds = running.behind.seconds(performance.now());
  const late = seconds ? `; the server is ${seconds} s behind` : "";
  document.body.classList.toggle("late", seconds > 0);
  if ($("state").textContent !== STATES[state] + late) $("state").textContent = STATES[state] + late;
}

/** What there is can be kept, also while it grows. */
function keeping() {
  const something = transcript.turns.length > 0;
  $("keep").hidden = !something;
  $("clear").disabled = running !== null;
  $("empty").hidden = something || running !== null;
  $("timeline").hidden = !something && running === null;
  $("play").disabled = !sound.pieces.length || running?.source instanceof Microphone;
  $("turns").classList.toggle("playable", !$("play").disabled);
}

async function copyAll() {
  try {
    await copy(transcript.turns);
    announce("Copied");
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  } catch {
    notice("The browser did not allow copying. Download the text instead.");
  }
}

// -- start -----------------------------------------------------------------------------------------

/** What was there before the page was loaded again, but for its sound. */
function restore() {
  const { turns, length, waveform } = storage.restore();
  reset(turns, length);
  for (const turn of turns) view.update(turn);
  timeline.waveform = waveform;
  timeline.show(turns);
  storage.rest = () => ({ length: clock.recorded, waveform: timeline.waveform });
}

function clear() {
  player.stop();
  sound = new Sound();
  player = new Player(sound, moved);
  view.clear();
  timeline.clear();
  storage.clear();
  reset([], 0);
  captions.show([]);
  show("idle");
}

function reset(turns, length) {
  transcript = new Transcript(turns, length);
  clock = new AudioClock(length);
  latency = new Latency(clock);
  figures(latency);
  for (const id of ["session", "duration"]) $(id).textContent = "–";
}

function wire() {
  const on = (id, act, event = "click") => $(id).addEventListener(event, act);
  on("start", start);
  on("stop", finish);
  on("try", () => trial.toggle());
  on("endpoint", () => running?.session?.forceEndpoint());
  on("file-button", () => $("file").click());
  on("file", () => {
    const [given] = $("file").files;
    if (given) file(given);
    $("file").value = "";
  }, "change");
  on("copy", copyAll);
  on("download", () => {
    if ($("download").value) download(transcript.turns, $("download").value);
    $("download").value = "";
  }, "change");
  on("clear", clear);
  on("captions", () => captions.open(transcript.turns));
  on("caption-close", () => $("caption-view").close());
  on("play", () => (player.playing ? player.stop() : playFrom(sound.pieces[0].start)));
  acceptDrops($("drop"), file);
  addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault(); // the browser asks
  });
  setInterval(watch, 500);
}

async function offer() {
  const response = await fetch("demo/server.json");
  const server = await response.json();
  settings.offer(server);
  $("version").textContent = server.version;
}

wire();
restore();
offer().then(
  () => show("idle"),
  () => notice(new Trouble("unreachable").message),
);
