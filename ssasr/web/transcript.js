// The words so far, as the server's messages say them. No DOM here.

/** `turns`: { id, words: [{ text, start, end, confidence, final, speaker? }], ended, confidence,
 *  language?, speaker? }. Times are milliseconds from the start of the first recording: a further
 *  one begins where the one before it ended. */
export class Transcript {
  constructor(turns = [], length = 0) {
    this.turns = turns;
    this.known = new Map(turns.map((turn) => [turn.id, turn]));
    this.recording = turns.length ? Number(turns.at(-1).id.split("-")[0]) : -1;
    this.base = length;
    this.sessions = [...new Set(turns.map((turn) => turn.id.replace(/-\d+$/, "")))];
  }

  /** Where another recording begins. */
  begin(base) {
    this.recording += 1;
    this.base = base;
  }

  /** Of the last word, in ms. */
  get end() {
    return this.turns.at(-1)?.words.at(-1)?.end ?? 0;
  }

  /** The number of this recording's `number`-th session among those of all recordings, from 1. */
  session(number) {
    const name = `${this.recording}-${number}`;
    if (!this.sessions.includes(name)) this.sessions.push(name);
    return this.sessions.indexOf(name) + 1;
  }

  /** Takes a Turn of the session that is the recording's `number`-th, begun at `offset` ms. */
  apply(message, offset, number) {
    const session = this.session(number);
    const id = `${this.recording}-${number}-${message.turn_order}`;
    let turn = this.known.get(id);
    if (!turn) {
      turn = { id, words: [], ended: false };
      this.turns.push(turn);
      this.known.set(id, turn);
    }
    turn.words = message.words.map((word) => ({
      text: word.text,
      start: Math.round(word.start + offset + this.base),
      end: Math.round(word.end + offset + this.base),
      confidence: word.confidence,
      final: word.word_is_final,
      ...(word.speaker && { speaker: label(word.speaker, session) }),
    }));
    turn.ended = message.end_of_turn;
    turn.confidence = message.end_of_turn_confidence;
    if (message.language_code) turn.language = message.language_code;
    if (message.speaker_label) turn.speaker = label(message.speaker_label, session);
    return turn;
  }

  /** Takes a SpeakerRevision; texts and times stay as they are. Returns the turns that changed. */
  revise(message, number) {
    const session = this.session(number);
    const changed = [];
    for (const { turn_order, speaker_label, words } of message.revisions) {
      const turn = this.known.get(`${this.recording}-${number}-${turn_order}`);
      if (!turn) continue;
      turn.speaker = label(speaker_label, session);
      words.forEach(({ speaker }, i) => {
        if (turn.words[i]) turn.words[i].speaker = label(speaker, session);
      });
      changed.push(turn);
    }
    return changed;
  }

  /** The session is over, by the end or a break: what is tentative will not be confirmed. Returns
   *  the turns that changed. */
  settle() {
    const open = this.turns.filter((turn) => !turn.ended);
    for (const turn of open) {
      turn.words = turn.words.filter((word) => word.final);
      turn.ended = true;
      if (!turn.words.length) this.known.delete(turn.id);
    }
    this.turns = this.turns.filter((turn) => turn.words.length > 0);
    return open;
  }
}

/** Each session finds its speakers anew: its A may be the B of the one before, and is 2A. */
function label(speaker, session) {
  return session > 1 && /^[A-Z]$/.test(speaker) ? `${session}${speaker}` : speaker;
}

/** [turn, index of the word] at `ms`, or []. */
export function wordAt(turns, ms) {
  let low = 0;
  let high = turns.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (turns[middle].words[0].start <= ms) low = middle + 1;
    else high = middle;
  }
  const turn = turns[low - 1];
  const index = turn?.words.findIndex(({ start, end }) => ms >= start && ms < end) ?? -1;
  return index < 0 ? [] : [turn, index];
}
