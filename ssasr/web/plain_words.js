// What went wrong, said so that a person knows what to do about it.

const TEXTS = {
  insecure: () =>
    "The browser lends its microphone only to pages on https:// or localhost. Open this page " +
    "there, or choose a file instead.",
  denied: () =>
    "The microphone is blocked for this page. Allow it in the browser's address bar, then start " +
    "again.",
  absent: () => "No microphone was found. Plug one in, or choose a file instead.",
  occupied: () => "The microphone is in use by another program. Close that one, then start again.",
  unplugged: () => "The microphone was disconnected.",
  undecodable: (name) => `This browser cannot read “${name}” as audio.`,
  unreachable: () => "The server cannot be reached. Is it running, and is the network up?",
  no_tokens: () =>
    "This server does not hand out temporary tokens, so the page cannot open a session.",
  key: () => "That key does not open a session on this server.",
  lost: (seconds) =>
    `The connection was lost, and ${seconds} s of audio are missing from the transcript.`,
  gave_up: () => "The connection was lost and could not be restored.",
  silent: () => "The server says nothing any more; the last words may be missing.",
  speakers: () => "This server cannot tell speakers apart.",
  unkept: () =>
    "The browser keeps no more of this transcript: download it before you reload or leave the page.",
};

const CLOSED = {
  1001: () => "The server is shutting down. Try again in a moment.",
  1008: (reason) => `The server refused the session: ${reason || "not authorized"}.`,
  1009: () => "A message was too large for the server.",
  1013: () => "The server's speech engine does not answer at the moment. Try again soon.",
  3005: () => "The server lost its speech engine and could not replace it. Try again.",
  3006: (reason) => reason.replace(/^User Input Validation Error: /, "The server refused: "),
  3007: (reason) => `The server could not take the audio as it came: ${reason}.`,
  3008: () => "The longest time that a session may last is over.",
  3009: () => "Every place on this server is taken. Try again in a moment.",
};

/** An error for the visitor. `kind` names a text above; `code` is a WebSocket close code. */
export class Trouble extends Error {
  constructor(kind, detail) {
    super(TEXTS[kind](detail));
    this.kind = kind;
  }

  static ofMicrophone({ name, message }) {
    const kinds = {
      NotAllowedError: "denied",
      SecurityError: "denied",
      NotFoundError: "absent",
      OverconstrainedError: "absent",
      NotReadableError: "occupied",
      AbortError: "occupied",
    };
    return kinds[name] ? new Trouble(kinds[name]) : new Error(`The microphone failed: ${message}`);
  }

  static ofClose(code, reason) {
    const text = CLOSED[code];
    const trouble = text ? new Error(text(reason)) : new Trouble("gave_up");
    trouble.code = code;
    return trouble;
  }
}
