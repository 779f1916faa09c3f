// The transcript survives a reload: each turn is one entry of the tab's session storage, written half
// a second after it changed. Nothing of it leaves the browser, and it is gone with the tab.

const PREFIX = "ssasr.turn.";
const LENGTH = "ssasr.length"; // ms of the recordings
const WAVEFORM = "ssasr.waveform";
const WAIT_MS = 500;

const numbers = (id) => id.split("-").map(Number);

/** Turn ids are numbers in the order of speaking: recording, session, turn. */
function byId(one, other) {
  const [a, b] = [numbers(one.id), numbers(other.id)];
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

function pack({ words, ...turn }) {
  const short = words.map((w) => [w.text, w.start, w.end, w.confidence, +w.final, w.speaker]);
  return JSON.stringify({ ...turn, words: short });
}

function unpack(id, entry) {
  const { words, ...turn } = JSON.parse(entry);
  const long = words.map(([text, start, end, confidence, final, speaker]) => ({
    text, start, end, confidence, final: Boolean(final), ...(speaker && { speaker }),
  }));
  return { ...turn, id, words: long, ended: true };
}

export class Storage {
  /** `full`: called once, when the browser takes no more. */
  constructor(full) {
    this.full = full;
    this.changed = new Map();
    this.rest = () => ({}); // what else is written: { length, waveform }
    addEventListener("pagehide", () => this.flush(true));
    document.addEventListener("visibilitychange", () => document.hidden && this.flush(true));
  }

  note(turn) {
    this.changed.set(turn.id, turn);
    this.timer ??= setTimeout(() => this.flush(), WAIT_MS);
  }

  /** `leaving`: it may be the last time, so what is long and changes all the time is written too. */
  flush(leaving = false) {
    clearTimeout(this.timer);
    this.timer = undefined;
    try {
      for (const [id, turn] of this.changed) {
        if (turn.words.length) sessionStorage.setItem(PREFIX + id, pack(turn));
        else sessionStorage.removeItem(PREFIX + id);
      }
      const { length = 0, waveform = "" } = this.rest();
      sessionStorage.setItem(LENGTH, length);
      if (leaving) sessionStorage.setItem(WAVEFORM, waveform);
    } catch {
      this.full?.(); // or the browser keeps nothing at all
      this.full = null;
    }
    this.changed.clear();
  }

  /** { turns, length, waveform } of before the reload. */
  restore() {
    try {
      const turns = Object.keys(sessionStorage)
        .filter((key) => key.startsWith(PREFIX))
        .map((key) => unpack(key.slice(PREFIX.length), sessionStorage.getItem(key)))
        .sort(byId);
      const length = Number(sessionStorage.getItem(LENGTH)) || 0;
      return { turns, length, waveform: sessionStorage.getItem(WAVEFORM) ?? "" };
    } catch {
      return { turns: [], length: 0, waveform: "" };
    }
  }

  clear() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.changed.clear();
    try {
      for (const key of Object.keys(sessionStorage)) {
        if (key.startsWith("ssasr.")) sessionStorage.removeItem(key);
      }
    } catch {
      // There was nothing, then.
    }
  }
}
