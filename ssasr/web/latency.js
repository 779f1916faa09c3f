// How long after a word was spoken the page had it, by the browser's own clock: from the moment the
// audio at the word's end was captured to the moment the message with the word arrived.

const REMEMBERED = 3000; // messages of audio: four minutes

export class AudioClock {
  /** `recorded`: milliseconds before this recording. */
  constructor(recorded = 0) {
    this.marks = []; // [milliseconds of the recording, performance.now()]
    this.recorded = recorded;
  }

  /** `milliseconds` more of the recording ended at `now`. */
  captured(milliseconds, now) {
    this.recorded += milliseconds;
    this.marks.push([this.recorded, now]);
    if (this.marks.length > REMEMBERED) this.marks.shift();
  }

  /** When the recording's position `ms` was captured; undefined if that is forgotten. */
  capturedAt(ms) {
    if (!this.marks.length || ms < this.marks[0][0] - 100) return undefined;
    let low = 0;
    let high = this.marks.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.marks[middle][0] < ms) low = middle + 1;
      else high = middle;
    }
    const [end, at] = this.marks[low];
    return at - (end - ms);
  }
}

/** Lags in ms: a word's first appearance, the same word final, and the end of its turn. */
export class Latency {
  constructor(clock) {
    this.clock = clock;
    this.first = [];
    this.final = [];
    this.turn = [];
    this.seen = new Map(); // turn id to [words seen, words final, ended]
    this.from = 0;
  }

  /** Another session takes over at `ms`: what it hears again from before says how long the break
   *  was, not how fast the server is. */
  resume(ms) {
    this.from = ms;
  }

  note(turn, now) {
    const [shown, settled, ended] = this.seen.get(turn.id) ?? [0, 0, false];
    const finals = turn.words.findIndex((word) => !word.final);
    const final = finals < 0 ? turn.words.length : finals;
    for (const word of turn.words.slice(shown)) this.add(this.first, word.end, now);
    for (const word of turn.words.slice(settled, final)) this.add(this.final, word.end, now);
    if (turn.ended && !ended && turn.words.length) {
      this.add(this.turn, turn.words.at(-1).end, now);
    }
    this.seen.set(turn.id, [
      Math.max(shown, turn.words.length),
      Math.max(settled, final),
      ended || turn.ended,
    ]);
  }

  add(list, ms, now) {
    const at = ms > this.from ? this.clock.capturedAt(ms) : undefined;
    if (at !== undefined) list.push(now - at);
  }
}

export function percentile(values, fraction) {
  if (!values.length) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))];
}
