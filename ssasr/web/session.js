// One transcription: a token, a WebSocket, and another of each when the connection breaks.
//
// Audio is kept from the last final word on. A new session starts there, so that nothing said
// during a break is lost and nothing is written twice; `offset` is where in the recording it
// starts, in milliseconds, since the server counts each session from 0.

import { Trouble } from "./plain_words.js";

const KEEP_SECONDS = 60;
const SILENCE_MS = 30000; // without a message while the server finishes, after which it is given up
const RETRY_MS = [300, 1000, 2000, 4000, 8000, 8000, 8000];
const MAY_RETRY = new Set([1001, 1006, 1013, 3005, 3008, 3009]);
const DEFAULT_KEY = "self-hosted"; // the one that everybody knows

export class KeyNeeded extends Error {}

/** A temporary token for one session. Throws KeyNeeded or a Trouble. */
export async function fetchToken(key) {
  let response;
  try {
    response = await fetch("v3/token?expires_in_seconds=60", {
      headers: { Authorization: key || DEFAULT_KEY },
      cache: "no-store",
    });
  } catch {
    throw new Trouble("unreachable");
  }
  if (response.status === 401 || response.status === 403) throw new KeyNeeded();
  if (response.status === 404) throw new Trouble("no_tokens");
  if (!response.ok) throw new Trouble("unreachable");
  return (await response.json()).token;
}

export class Session {
  /**
   * `parameters`: of the query, sample_rate among them. `hear`: called with `state(name)`,
   * `message(message, offset, number)` and `ended(trouble or null)`.
   */
  constructor(parameters, key, hear) {
    this.parameters = parameters;
    this.key = key;
    this.hear = hear;
    this.rate = parameters.sample_rate;
    this.kept = []; // { start, pcm }: start in samples of the recording
    this.captured = 0; // samples of the recording so far
    this.settled = 0; // sample after the last final word
    this.offset = 0;
    this.number = -1; // of the server's sessions
    this.attempt = 0;
    this.lost = 0;
    this.open = false;
    this.over = false;
  }

  /** Throws KeyNeeded or a Trouble; afterwards `hear.ended` tells. */
  async start() {
    this.hear.state("connecting");
    this.connect(await fetchToken(this.key));
  }

  audio(pcm) {
    const chunk = { start: this.captured, pcm };
    this.captured += pcm.byteLength / 2;
    this.kept.push(chunk);
    if (this.open) this.socket.send(pcm);
    this.forget(Math.max(this.settled, this.captured - KEEP_SECONDS * this.rate));
  }

  /** From now on, and in a session that follows. */
  configure(configuration) {
    for (const [name, value] of Object.entries(configuration)) {
      this.parameters[name] = JSON.stringify(value);
    }
    const message = { type: "UpdateConfiguration", ...configuration };
    if (this.open) this.socket.send(JSON.stringify(message));
  }

  forceEndpoint() {
    if (this.open) this.socket.send('{"type":"ForceEndpoint"}');
  }

  /** No more audio: the audio captured is finished, then the session ends. */
  finish() {
    if (this.over || this.finishing) return;
    this.finishing = true;
    this.hear.state("finishing");
    if (this.open) this.socket.send('{"type":"Terminate"}');
    this.waitOn();
  }

  /** The server is alive: it has as long again to finish. */
  waitOn() {
    clearTimeout(this.deadline);
    this.deadline = setTimeout(() => this.end(new Trouble("silent")), SILENCE_MS);
  }

  end(trouble) {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.deadline);
    clearTimeout(this.retry);
    this.socket?.close();
    this.hear.ended(trouble);
  }

  // -- inside ------------------------------------------------------------------------------------

  connect(token) {
    if (this.over) return;
    const query = new URLSearchParams({ ...this.parameters, token });
    const url = new URL(`v3/ws?${query}`, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(url);
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = (event) => this.closed(event);
  }

  receive(message) {
    if (this.finishing) this.waitOn();
    if (message.type === "Begin") this.begun();
    else if (message.type === "Error") this.problem = message.error;
    else this.attempt = 0; // not at Begin: the engine may be lost before it says anything
    if (message.type === "Turn") this.settle(message);
    this.hear.message(message, this.offset, this.number);
    if (message.type === "Termination" && this.finishing) this.end(null);
  }

  begun() {
    const start = Math.max(this.settled, this.kept[0]?.start ?? this.settled);
    this.lost += start - this.settled;
    this.offset = (start / this.rate) * 1000;
    this.number += 1;
    this.open = true;
    this.hear.state(this.finishing ? "finishing" : "listening");
    for (const chunk of this.kept) {
      const skip = Math.max(0, start - chunk.start);
      if (skip * 2 < chunk.pcm.byteLength) this.socket.send(chunk.pcm.slice(skip * 2));
    }
    if (this.finishing) this.socket.send('{"type":"Terminate"}');
  }

  settle(turn) {
    const final = turn.words.filter((word) => word.word_is_final).at(-1);
    if (!final) return;
    const at = Math.round(((this.offset + final.end) / 1000) * this.rate);
    this.settled = Math.max(this.settled, at);
    this.forget(this.settled);
  }

  forget(before) {
    const first = this.kept.findIndex((c) => c.start + c.pcm.byteLength / 2 > before);
    this.kept.splice(0, first < 0 ? this.kept.length : first);
  }

  closed({ code, reason }) {
    const wasOpen = this.open;
    this.open = false;
    if (this.over) return;
    if (code === 1000 && this.finishing) return this.end(null);
    const begunOnce = this.number >= 0;
    if (!begunOnce || !(MAY_RETRY.has(code) || code === 1000)) {
      const trouble = code === 1006 ? new Trouble("unreachable") : null;
      return this.end(trouble ?? Trouble.ofClose(code, this.problem || reason));
    }
    if (wasOpen) this.hear.state("reconnecting");
    this.reconnect();
  }

  reconnect() {
    if (this.attempt >= RETRY_MS.length) return this.end(new Trouble("gave_up"));
    const wait = RETRY_MS[this.attempt++];
    this.retry = setTimeout(async () => {
      try {
        this.connect(await fetchToken(this.key));
      } catch (error) {
        if (error instanceof KeyNeeded) this.end(new Trouble("key"));
        else this.reconnect();
      }
    }, wait);
  }

  /** Whole seconds of audio that a break has cost, beyond what is kept. */
  get lostSeconds() {
    return Math.round(this.lost / this.rate);
  }
}
