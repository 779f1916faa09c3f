// How far the server is behind what was captured. Turns come only when somebody speaks, so a session
// asks for heartbeats, which say every few seconds up to where an engine has listened.

const LATE_MS = 3000; // more than a step of the slowest engine
const SILENT_MS = 7500; // a heartbeat and a half

export class Behind {
  constructor(now) {
    this.processed = 0; // ms of the recording
    this.lastMessage = now; // when the server last said anything
    this.late = false;
  }

  /** A message of a session that begins at `offset` ms of the recording; `captured` ms are there. */
  note(message, offset, captured, now) {
    this.lastMessage = now;
    let position;
    if (message.type === "Begin") position = offset;
    if (message.type === "Heartbeat") position = offset + message.total_audio_processed_ms;
    if (message.type === "Turn") {
      const end = offset + (message.words.at(-1)?.end ?? 0);
      position = Math.max(this.processed, end);
    }
    if (position === undefined) return;
    this.processed = position;
    const late = captured - position > LATE_MS;
    // A turn may be about words long past; only a heartbeat says that nothing newer was listened to.
    this.late = message.type === "Heartbeat" ? late : this.late && late;
  }

  /** Whole seconds; 0 as long as all is well. */
  seconds(captured, now) {
    if (!this.late && now - this.lastMessage <= SILENT_MS) return 0;
    return Math.max(0, Math.round((captured - this.processed) / 1000));
  }
}
