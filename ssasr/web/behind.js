// How far the server is behind the sound. Turns come only when somebody speaks, so a session asks for
// heartbeats, which say every few seconds up to where an engine has listened.

const LATE_MS = 3000; // more than a step of the slowest engine
const SILENT_MS = 7500; // a heartbeat and a half

export class Behind {
  /** `clock`: of the recording, an AudioClock; positions are its milliseconds. */
  constructor(clock, now) {
    this.clock = clock;
    this.processed = clock.recorded;
    this.lastMessage = now; // when the server last said anything
    this.late = false;
  }

  /** A message of a session that begins at `offset` ms. */
  note(message, offset, now) {
    this.lastMessage = now;
    if (message.type === "Begin") this.processed = offset;
    if (message.type === "Turn") {
      this.processed = Math.max(this.processed, offset + (message.words.at(-1)?.end ?? 0));
      this.late &&= this.milliseconds(now) > LATE_MS;
    }
    if (message.type === "Heartbeat") {
      this.processed = offset + message.total_audio_processed_ms;
      this.late = this.milliseconds(now) > LATE_MS; // a turn may be about words long past
    }
  }

  /** Since what the server has not listened to yet was said. */
  milliseconds(now) {
    const rest = this.clock.recorded - this.processed;
    if (rest <= 0) return 0;
    const at = this.clock.capturedAt(this.processed);
    return at === undefined ? rest : now - at;
  }

  /** Whole seconds; 0 as long as all is well. */
  seconds(now) {
    if (!this.late && now - this.lastMessage <= SILENT_MS) return 0;
    return Math.round(this.milliseconds(now) / 1000);
  }
}
