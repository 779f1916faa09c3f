// Words to captions: what stands on a screen together, for how long, and on which line.
// `ssasr/client/captions.py` has the same rules and says why; `tests/data/captions.json` holds both to them.

import { columns, spaceBetween } from "./joining.js";

const LINE = 42; // columns of a line
const LONGEST = 6000; // ms a caption may stay
const SHORTEST = 1000; // ms it stays, if the next one leaves the room
const COLUMN = 50; // ms it takes to read a column
const PAUSE = 1500; // ms of silence that should not lie within a caption
const BREAK = 2 * PAUSE; // and that never do
const BREATH = 300; // ms of silence that make a good place for a cut
const CLOSERS = /["'”’»)\]}」』]+$/u;
const SENTENCE_END = /[.?!。？！।؟]$/u;
const CLAUSE_END = /(?:[,;:—–…，、；：،]|\.\.)$/u;
const ABBREVIATION = /^(?:(?:Mr|Mrs|Ms|Dr|St|Prof)\.|\p{L}.)$/u;

const CAPTION = 10;
const ONE_WORD = 100;
const WITHIN_PAUSE = 60;
const CLAUSE_CUT = 4;
const BREATH_CUT = 6;
const OTHER_CUT = 14;
const SENTENCE_WITHIN = 6;
const HURRY = 100; // ms too few for reading that cost as much as one point
const MOST_HURRY = 10;

/** Captions `{start, end, lines, speaker}` of finished turns. */
export function cues(turns) {
  const found = runs(turns).flatMap(cut);
  found.forEach((cue, i) => {
    const reading = COLUMN * cue.lines.reduce((sum, line) => sum + columns(line), 0);
    let end = Math.max(cue.end, cue.start + Math.min(Math.max(SHORTEST, reading), LONGEST));
    if (i + 1 < found.length) end = Math.min(end, Math.max(cue.end, found[i + 1].start));
    cue.end = end;
  });
  return found;
}

const speakerOf = (word) => word.speaker ?? null;

/** Words of one speaker without a long silence between them, each with whether it ends a turn. */
function runs(turns) {
  const result = [];
  let last = null;
  for (const turn of turns) {
    turn.words.forEach((word, i) => {
      const goesOn = last && speakerOf(word) === speakerOf(last) && word.start - last.end < BREAK;
      if (!goesOn) result.push([]);
      result.at(-1).push({ word, turnEnds: i + 1 === turn.words.length });
      last = word;
    });
  }
  return result;
}

/** Words, or parts of those that are longer than a line. */
function unitsOf(run, width) {
  const units = [];
  let before = "";
  run.forEach(({ word, turnEnds }, i) => {
    const following = i + 1 < run.length ? run[i + 1].word.start : word.end;
    const whole = Math.max(1, [...word.text].length);
    const at = (done) => word.start + Math.floor(((word.end - word.start) * done) / whole);
    let done = 0;
    const parts = partsOf(word.text, width);
    parts.forEach((text, part) => {
      const start = at(done);
      done += [...text].length;
      const ends = part + 1 === parts.length;
      units.push({
        text,
        start,
        end: at(done),
        space: part === 0 ? spaceBetween(before, text) : "",
        width: columns(text),
        cut: ends ? cutCost(word.text, turnEnds, following - word.end) : OTHER_CUT,
        sentence: ends && (turnEnds || endsSentence(word.text)),
      });
    });
    before = word.text;
  });
  return units;
}

function partsOf(text, width) {
  const parts = [""];
  for (const character of text) {
    if (columns(parts.at(-1) + character) > width && !/\p{M}/u.test(character)) parts.push("");
    parts[parts.length - 1] += character;
  }
  return parts;
}

function endsSentence(text) {
  const bare = text.replace(CLOSERS, "");
  return SENTENCE_END.test(bare) && !bare.endsWith("..") && !ABBREVIATION.test(bare);
}

function cutCost(text, turnEnds, silence) {
  if (turnEnds || endsSentence(text)) return 0;
  if (CLAUSE_END.test(text.replace(CLOSERS, ""))) return CLAUSE_CUT;
  return silence >= BREATH ? BREATH_CUT : OTHER_CUT;
}

/** The cheapest captions of a run. */
function cut(run) {
  const speaker = speakerOf(run[0].word);
  const lead = speaker === null ? 0 : columns(speaker) + 2;
  const units = unitsOf(run, LINE - lead);
  const layout = layoutOf(units, lead);
  const ends = layout.cheapest();
  return ends.map((end, i) => {
    const start = i ? ends[i - 1] : 0;
    const lines = layout.lines(start, end);
    return { start: units[start].start, end: units[end - 1].end, lines, speaker };
  });
}

/** Which units fit together, and at what price. `lead`: columns of the speaker's name. */
function layoutOf(units, lead) {
  const before = [0];
  for (const unit of units) before.push(before.at(-1) + unit.space.length + unit.width);
  const width = (start, end) => before[end] - before[start] - units[start].space.length;
  const splits = (start, at, end) => lead + width(start, at) <= LINE && width(at, end) <= LINE;

  function ways(start, end) {
    const found = [];
    for (let at = start + 1; at < end; at++) if (splits(start, at, end)) found.push(at);
    return found;
  }

  const allowed = (start, end) =>
    units[end - 1].end - units[start].start <= LONGEST &&
    width(start, end) <= 2 * LINE &&
    (lead + width(start, end) <= LINE || ways(start, end).length > 0);

  function price(start, end) {
    const last = end === units.length;
    let sum = CAPTION + (last ? 0 : units[end - 1].cut) + (end - start === 1 ? ONE_WORD : 0);
    for (let i = start; i + 1 < end; i++) {
      if (units[i].sentence) sum += SENTENCE_WITHIN;
      if (units[i + 1].start - units[i].end >= PAUSE) sum += WITHIN_PAUSE;
    }
    if (last) return sum;
    const missing = COLUMN * width(start, end) - (units[end].start - units[start].start);
    return sum + Math.min(Math.floor(Math.max(missing, 0) / HURRY), MOST_HURRY);
  }

  /** Where captions end, the best of all ways to cut. */
  function cheapest() {
    const best = [0];
    const cameFrom = [0];
    for (let end = 1; end <= units.length; end++) {
      for (let start = end - 1; start >= 0; start--) {
        if (start < end - 1 && !allowed(start, end)) break;
        const sum = best[start] + price(start, end);
        if (best[end] === undefined || sum < best[end]) {
          best[end] = sum;
          cameFrom[end] = start;
        }
      }
    }
    const ends = [units.length];
    while (cameFrom[ends[0]] > 0) ends.unshift(cameFrom[ends[0]]);
    return ends;
  }

  const text = (start, end) =>
    units.slice(start, end).reduce((line, unit, i) => line + (i ? unit.space : "") + unit.text, "");

  /** One, or two as even as may be, cut where a caption could be cut as well. */
  function lines(start, end) {
    if (lead + width(start, end) <= LINE || end === start + 1) return [text(start, end)];
    let best = null;
    for (const at of ways(start, end)) {
      const uneven = Math.max(lead + width(start, at), width(at, end)) + units[at - 1].cut;
      if (best === null || uneven < best.uneven) best = { uneven, at };
    }
    return [text(start, best.at), text(best.at, end)];
  }

  return { cheapest, lines };
}
