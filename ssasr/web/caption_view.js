// The last words in large type over the whole screen, for a room.

import { spaceBetween } from "./joining.js";
import { colourOf, initialOf } from "./speakers.js";

const TURNS = 3;
const WORDS = 60; // of a turn; more do not fit

export class CaptionView {
  constructor(dialog, text) {
    this.dialog = dialog;
    this.text = text;
    dialog.addEventListener("close", () => this.closed());
    document.addEventListener("fullscreenchange", () => {
      if (!document.fullscreenElement && this.wasFull) dialog.close();
      this.wasFull = document.fullscreenElement === dialog;
    });
  }

  async open(turns) {
    this.dialog.showModal();
    this.show(turns);
    // Neither is there everywhere (iPhones have no full screen for pages), and both may be refused.
    await this.dialog.requestFullscreen?.().catch(() => {});
    this.lock = await navigator.wakeLock?.request("screen").catch(() => null);
  }

  closed() {
    if (document.fullscreenElement) document.exitFullscreen();
    this.lock?.release();
    this.lock = null;
  }

  show(turns) {
    if (!this.dialog.open) return;
    this.text.replaceChildren(...turns.slice(-TURNS).map(paragraph));
  }
}

function paragraph(turn) {
  const line = document.createElement("p");
  if (turn.speaker) {
    const who = document.createElement("span");
    who.className = `who ${colourOf(turn.speaker)}`;
    who.textContent = initialOf(turn.speaker);
    line.append(who, " ");
  }
  let before;
  for (const { text, final } of turn.words.slice(-WORDS)) {
    const span = document.createElement("span");
    span.className = final ? "" : "tentative";
    span.textContent = text;
    line.append(spaceBetween(before, text), span);
    before = text;
  }
  return line;
}
