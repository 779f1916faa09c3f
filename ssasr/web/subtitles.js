// Turns as text, SRT, VTT and JSON. `ssasr/client/subtitles.py` has the same rules; a test compares them.

import { columns, join } from "./joining.js";

const LINE = 42; // columns of a line, two lines a cue: what broadcasters use
const LONGEST = 6000; // ms a cue may stay
const PAUSE = 1500; // ms of silence that end a cue
const SHORTEST = 1000; // ms a cue stays, if the next one leaves the room

export function cues(turns) {
  const result = [];
  for (const turn of turns) {
    let cue = null;
    for (const word of turn.words) {
      if (cue === null || !fits(cue, word)) {
        cue = { start: word.start, end: word.end, words: [word.text] };
        result.push(cue);
      } else {
        cue.end = word.end;
        cue.words.push(word.text);
      }
    }
  }
  result.forEach((cue, i) => {
    const room = i + 1 < result.length ? result[i + 1].start : Infinity;
    cue.end = Math.max(cue.end, Math.min(cue.start + SHORTEST, room));
  });
  return result;
}

function fits(cue, word) {
  const text = join(cue.words);
  return (
    columns(join([...cue.words, word.text])) <= 2 * LINE &&
    word.end - cue.start <= LONGEST &&
    word.start - cue.end < PAUSE &&
    !(/[.?!。？！]$/.test(text) && columns(text) >= LINE)
  );
}

/** On two lines if they are longer than one, as even as the words allow. */
export function wrapped(words) {
  const text = join(words);
  if (columns(text) <= LINE || words.length === 1) return text;
  let best = null;
  for (let i = 1; i < words.length; i++) {
    const lines = [join(words.slice(0, i)), join(words.slice(i))];
    const longest = Math.max(...lines.map(columns));
    if (best === null || longest < best.longest) best = { longest, lines };
  }
  return best.lines.join("\n");
}

function timestamp(ms, mark) {
  const digits = (number, width) => String(number).padStart(width, "0");
  const seconds = Math.floor(ms / 1000);
  const clock = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((n) =>
    digits(Math.floor(n), 2),
  );
  return `${clock.join(":")}${mark}${digits(ms % 1000, 3)}`;
}

export function text(turns) {
  return turns.map((turn) => `${join(turn.words.map((word) => word.text))}\n`).join("");
}

export function srt(turns) {
  return cues(turns)
    .map(
      (cue, i) =>
        `${i + 1}\n${timestamp(cue.start, ",")} --> ${timestamp(cue.end, ",")}\n${wrapped(cue.words)}\n`,
    )
    .join("\n");
}

export function vtt(turns) {
  const escaped = (line) =>
    line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const body = cues(turns).map(
    (cue) =>
      `\n${timestamp(cue.start, ".")} --> ${timestamp(cue.end, ".")}\n${escaped(wrapped(cue.words))}\n`,
  );
  return `WEBVTT\n${body.join("")}`;
}

export function json(turns) {
  const plain = turns.map((turn) => ({
    transcript: join(turn.words.map((word) => word.text)),
    start: turn.words[0].start,
    end: turn.words.at(-1).end,
    end_of_turn_confidence: turn.confidence,
    ...(turn.language ? { language_code: turn.language } : {}),
    words: turn.words.map(({ text, start, end, confidence }) => ({ text, start, end, confidence })),
  }));
  return `${JSON.stringify({ turns: plain }, null, 2)}\n`;
}

export const FORMATS = {
  txt: [text, "text/plain"],
  srt: [srt, "application/x-subrip"],
  vtt: [vtt, "text/vtt"],
  json: [json, "application/json"],
};
