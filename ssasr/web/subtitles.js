// Turns as text, SRT, VTT and JSON. `ssasr/client/subtitles.py` has the same rules; a test compares them.

import { cues } from "./captions.js";
import { join } from "./joining.js";

function timestamp(ms, mark) {
  const digits = (number, width) => String(number).padStart(width, "0");
  const seconds = Math.floor(ms / 1000);
  const clock = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((n) =>
    digits(Math.floor(n), 2),
  );
  return `${clock.join(":")}${mark}${digits(ms % 1000, 3)}`;
}

/** What each said without another's word between. */
function bySpeaker(turn) {
  const runs = [];
  for (const { text, speaker = null } of turn.words) {
    if (runs.at(-1)?.speaker !== speaker) runs.push({ speaker, words: [] });
    runs.at(-1).words.push(text);
  }
  return runs;
}

/** A line a turn, and one for each of several speakers in it. */
export function text(turns) {
  const runs = turns.flatMap(bySpeaker);
  return runs.map((run) => `${named(run)}${join(run.words)}\n`).join("");
}

const named = ({ speaker }) => (speaker === null ? "" : `${speaker}: `);
const voice = ({ speaker }) => (speaker === null ? "" : `<v ${speaker}>`);

export function srt(turns) {
  return cues(turns)
    .map(
      (cue, i) =>
        `${i + 1}\n${timestamp(cue.start, ",")} --> ${timestamp(cue.end, ",")}\n${named(cue)}${cue.lines.join("\n")}\n`,
    )
    .join("\n");
}

export function vtt(turns) {
  const escaped = (line) =>
    line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const body = cues(turns).map(
    (cue) =>
      `\n${timestamp(cue.start, ".")} --> ${timestamp(cue.end, ".")}\n${voice(cue)}${escaped(cue.lines.join("\n"))}\n`,
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
    ...(turn.speaker ? { speaker: turn.speaker } : {}),
    words: turn.words.map(({ text, start, end, confidence, speaker = null }) => ({
      text,
      start,
      end,
      confidence,
      ...(turn.speaker ? { speaker } : {}),
    })),
  }));
  return `${JSON.stringify({ turns: plain }, null, 2)}\n`;
}

export const FORMATS = {
  txt: [text, "text/plain"],
  srt: [srt, "application/x-subrip"],
  vtt: [vtt, "text/vtt"],
  json: [json, "application/json"],
};
