// The words so far, as the server's messages say them. No DOM here.

/** `turns`: { id, words: [{ text, start, end, confidence, final }], ended, confidence, language }.
 *  Times are milliseconds of the recording. */
export class Transcript {
  constructor() {
    this.turns = [];
  }

  /** Takes a Turn of the session that is the recording's `number`-th, begun at `offset` ms. */
  apply(message, offset, number) {
    const id = `${number}-${message.turn_order}`;
    let turn = this.turns.find((each) => each.id === id);
    if (!turn) {
      turn = { id, words: [], ended: false };
      this.turns.push(turn);
    }
    turn.words = message.words.map((word) => ({
      text: word.text,
      start: Math.round(word.start + offset),
      end: Math.round(word.end + offset),
      confidence: word.confidence,
      final: word.word_is_final,
    }));
    turn.ended = message.end_of_turn;
    turn.confidence = message.end_of_turn_confidence;
    if (message.language_code) turn.language = message.language_code;
    return turn;
  }

  /** The session is over, by the end or a break: what is tentative will not be confirmed. Returns
   *  the turns that changed. */
  settle() {
    const open = this.turns.filter((turn) => !turn.ended);
    for (const turn of open) {
      turn.words = turn.words.filter((word) => word.final);
      turn.ended = true;
    }
    this.turns = this.turns.filter((turn) => turn.words.length > 0);
    return open;
  }
}
