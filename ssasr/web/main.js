// Wires the page: controls, one recording at a time, and what is known about it.

import { Behind } from "./behind.js";
import { MODELS, languages } from "./languages.js";
import { AudioClock, Latency, percentile } from "./latency.js";
import { Trouble } from "./plain_words.js";
import { KeyNeeded, Session } from "./session.js";
import { Microphone, Recording } from "./sources.js";
import { Storage } from "./storage.js";
import { FORMATS, text } from "./subtitles.js";
import { join } from "./joining.js";
import { Transcript } from "./transcript.js";
import { TranscriptView } from "./view.js";

const $ = (id) => document.getElementById(id);
const STATES = {
  idle: "Ready",
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Reconnecting; nothing you say is lost",
  finishing: "Finishing",
};

const view = new TranscriptView($("turns"), $("about-word"), $("transcript"));
const storage = new Storage(() => notice(new Trouble("unkept").message));
let transcript = new Transcript();
let clock = new AudioClock();
let latency = new Latency(clock);
let running = null; // { source, session, behind }
let key = ""; // in memory only: it is gone with the page

// -- the recording ---------------------------------------------------------------------------------

async function begin(makeSource) {
  if (running) return;
  const mine = { source: makeSource(), session: null, behind: null };
  running = mine;
  notice("");
  show("asking", mine.source.waiting);
  try {
    await mine.source.open();
    if (running !== mine) return mine.source.stop();
    another();
    mine.session = new Session(parameters(mine.source.rate), key, sessionEvents(mine));
    await mine.session.start();
    if (running !== mine) return mine.source.stop();
    mine.source.ended = () => sourceEnded(mine);
    mine.source.start((chunk) => audio(mine, chunk));
  } catch (error) {
    const needsKey = error instanceof KeyNeeded;
    const wrong = needsKey && key !== "";
    stopped(mine, needsKey ? (wrong ? new Trouble("key") : null) : error);
    if (needsKey) askKey(() => begin(makeSource));
  }
}

/** A recording begins where the one before it ended. */
function another() {
  const base = Math.max(clock.recorded, transcript.turns.at(-1)?.words.at(-1)?.end ?? 0);
  transcript.begin(base);
  clock = new AudioClock(base);
  latency = new Latency(clock);
  figures();
}

/** Milliseconds of this recording so far. */
const captured = () => clock.recorded - transcript.base;

function parameters(rate) {
  const model = $("model").value;
  const language = $("language").value;
  const steering = language && !MODELS[model].english ? { language_codes: `["${language}"]` } : {};
  return {
    sample_rate: Math.round(rate),
    encoding: "pcm_s16le",
    speech_model: model,
    format_turns: "true",
    session_heartbeat: "true",
    ...steering,
  };
}

function audio(mine, { pcm, level, peak }) {
  const seconds = pcm.byteLength / 2 / mine.source.rate;
  clock.captured(seconds * 1000, performance.now());
  mine.session.audio(pcm);
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
      mine.behind ??= new Behind(now);
      mine.behind.note(message, offset, captured(), now);
      if (message.type === "Begin") begun(message, number);
      if (message.type === "Turn") turnChanged(transcript.apply(message, offset, number), now);
    },
    ended: (trouble) => stopped(mine, trouble),
  };
}

function begun({ id }, number) {
  $("session").textContent = id.slice(0, 8);
  if (number > 0) latency.resume(clock.recorded);
}

function turnChanged(turn, now) {
  latency.note(turn, now);
  changed([turn]);
  figures();
  keeping();
  if (turn.ended) announce(join(turn.words.map((word) => word.text)));
}

function changed(turns) {
  for (const turn of turns) {
    view.update(turn);
    storage.note(turn);
  }
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

function clear() {
  transcript = new Transcript();
  clock = new AudioClock();
  latency = new Latency(clock);
  view.clear();
  storage.clear();
  figures();
  for (const id of ["session", "duration"]) $(id).textContent = "–";
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
  for (const id of ["model", "file-button"]) $(id).disabled = busy;
  languageChoice();
  $("empty").hidden = busy || transcript.turns.length > 0;
  keeping();
  if (busy && [$("start"), $("file-button")].includes(focused)) $("stop").focus();
  if (!busy && focused === $("stop")) $("start").focus();
  if (state === "listening" || state === "reconnecting") announce(STATES[state]);
}

/** Whether the server keeps up; nothing else tells a stalled one from one that has nothing to say. */
function watch() {
  const { state } = document.body.dataset;
  if (!running?.behind || !["listening", "finishing"].includes(state)) return;
  const seconds = running.behind.seconds(captured(), performance.now());
  const late = seconds ? `; the server is ${seconds} s behind` : "";
  document.body.classList.toggle("late", seconds > 0);
  if ($("state").textContent !== STATES[state] + late) $("state").textContent = STATES[state] + late;
}

/** What there is can be kept, also while it grows. */
function keeping() {
  const something = transcript.turns.length > 0;
  for (const id of ["copy", "download"]) $(id).disabled = !something;
  $("clear").disabled = !something || running !== null;
}

function languageChoice() {
  $("language").disabled = running !== null || Boolean(MODELS[$("model").value]?.english);
}

function meter(level, peak) {
  // -60 dBFS to 0 dBFS, as the ear hears it.
  const share = (value) => Math.max(0, 1 + Math.log10(Math.max(value, 1e-3)) / 3);
  $("level").style.setProperty("--level", share(level).toFixed(3));
  $("level").style.setProperty("--peak", share(peak).toFixed(3));
  $("level").classList.toggle("clipped", peak > 0.99);
}

function figures() {
  for (const name of ["first", "final", "turn"]) {
    const values = latency[name].slice(-200);
    const [half, most] = [0.5, 0.95].map((fraction) => percentile(values, fraction));
    const rest = document.createElement("small");
    if (half !== undefined) rest.textContent = `p95 ${most.toFixed(0)}`;
    $(`lag-${name}`).replaceChildren(half === undefined ? "–" : `${half.toFixed(0)} ms `, rest);
  }
}

function notice(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

function announce(message) {
  $("announce").textContent = message;
}

// -- keeping it ------------------------------------------------------------------------------------

async function copy() {
  const whole = text(transcript.turns);
  try {
    await navigator.clipboard.writeText(whole);
    announce("Copied");
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  } catch {
    notice("The browser did not allow copying. Download the text instead.");
  }
}

function download(format) {
  const [write, type] = FORMATS[format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(transcript.turns)], { type }));
  link.download = `transcript.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function askKey(then) {
  const dialog = $("key-dialog");
  $("key").value = "";
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "open") return;
    key = $("key").value.trim();
    then();
  };
  dialog.showModal();
}

// -- start -----------------------------------------------------------------------------------------

async function offer() {
  const response = await fetch("demo/server.json");
  const server = await response.json();
  const models = server.speech_models.filter((name) => MODELS[name]);
  $("model").replaceChildren(...models.map((name) => new Option(MODELS[name].name, name)));
  $("version").textContent = server.version;
}

function wire() {
  $("language").append(...languages().map(([code, name]) => new Option(name, code)));
  $("model").addEventListener("change", languageChoice);
  $("start").addEventListener("click", () => begin(() => new Microphone()));
  $("stop").addEventListener("click", finish);
  $("endpoint").addEventListener("click", () => running?.session?.forceEndpoint());
  $("file-button").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) begin(() => new Recording(file, $("aloud").checked));
    $("file").value = "";
  });
  $("copy").addEventListener("click", copy);
  $("download").addEventListener("change", () => {
    if ($("download").value) download($("download").value);
    $("download").value = "";
  });
  $("clear").addEventListener("click", () => {
    clear();
    show("idle");
  });
  addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault(); // the browser asks
  });
  setInterval(watch, 500);
}

/** What was there before the page was loaded again. */
function restore() {
  const { turns, length } = storage.restore();
  transcript = new Transcript(turns, length);
  clock = new AudioClock(length);
  latency = new Latency(clock);
  storage.rest = () => ({ length: clock.recorded });
  for (const turn of turns) view.update(turn);
  figures();
}

wire();
restore();
offer().then(
  () => show("idle"),
  () => notice(new Trouble("unreachable").message),
);
