// The transcript on the page: a paragraph a turn, a span a word, and one panel that tells about the
// word under the pointer or the focus. The transcript is one stop of the tab key; arrows move in it.

import { spaceBetween } from "./joining.js";

const clock = (ms) => {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};
const inSeconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
const percent = (value) => `${Math.round(value * 100)} %`;

export class TranscriptView {
  constructor(list, panel, scroller) {
    this.list = list;
    this.panel = panel;
    this.scroller = scroller;
    this.shown = new Map(); // turn id to { item, text, meta, words: [{ span, word }] }
    this.facts = new WeakMap(); // span to word
    this.current = null; // the span that the tab key reaches
    list.addEventListener("pointerover", ({ target }) => this.tell(target));
    list.addEventListener("pointerleave", () => this.hide());
    list.addEventListener("focusin", ({ target }) => this.tell(target));
    list.addEventListener("focusout", () => this.hide());
    list.addEventListener("keydown", (event) => this.move(event));
    scroller.addEventListener("scroll", () => this.hide(), { passive: true });
  }

  clear() {
    this.list.replaceChildren();
    this.shown.clear();
    this.current = null;
    this.hide();
  }

  update(turn) {
    const following = this.atEnd();
    if (!turn.words.length) return this.remove(turn);
    const entry = this.shown.get(turn.id) ?? this.add(turn);
    turn.words.forEach((word, i) => this.word(entry, i, word, turn.words[i - 1]));
    for (const { gap, span } of entry.words.splice(turn.words.length)) {
      gap.remove();
      span.remove();
    }
    entry.item.classList.toggle("open", !turn.ended);
    entry.time.textContent = clock(turn.words[0].start);
    this.confidence(entry, turn);
    if (!this.current?.isConnected) this.reach(entry.words[0].span);
    if (following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  remove(turn) {
    this.shown.get(turn.id)?.item.remove();
    this.shown.delete(turn.id);
  }

  add(turn) {
    const item = document.createElement("li");
    const time = document.createElement("span");
    const text = document.createElement("p");
    const meta = document.createElement("span");
    time.className = "time";
    meta.className = "end";
    meta.setAttribute("role", "meter");
    meta.setAttribute("aria-valuemin", 0);
    meta.setAttribute("aria-valuemax", 100);
    meta.setAttribute("aria-label", "End-of-turn confidence");
    item.append(time, text, meta);
    this.list.append(item);
    const entry = { item, time, text, meta, words: [] };
    this.shown.set(turn.id, entry);
    return entry;
  }

  word(entry, i, word, before) {
    if (!entry.words[i]) {
      const span = document.createElement("span");
      span.tabIndex = -1;
      const gap = document.createTextNode("");
      entry.text.append(gap, span);
      entry.words[i] = { gap, span };
    }
    const { gap, span } = entry.words[i];
    const space = spaceBetween(before?.text, word.text);
    if (gap.data !== space) gap.data = space;
    if (span.textContent !== word.text) span.textContent = word.text;
    span.className = word.final ? "word final" : "word";
    this.facts.set(span, word);
  }

  confidence({ meta }, turn) {
    const value = turn.confidence ?? 0;
    meta.textContent = `end ${percent(value)}`;
    meta.style.setProperty("--value", value);
    meta.setAttribute("aria-valuenow", Math.round(value * 100));
    meta.title = `End-of-turn confidence${turn.ended ? " when the turn ended" : ""}`;
  }

  // -- one word ----------------------------------------------------------------------------------

  tell(target) {
    const word = this.facts.get(target);
    if (!word) return this.hide();
    const sure = word.confidence > 0 ? `, confidence ${percent(word.confidence)}` : "";
    const state = word.final ? "" : " · may still change";
    this.panel.textContent = `${inSeconds(word.start)} – ${inSeconds(word.end)}${sure}${state}`;
    this.panel.hidden = false;
    this.described?.removeAttribute("aria-describedby");
    this.described = target;
    target.setAttribute("aria-describedby", this.panel.id);
    this.place(target.getBoundingClientRect());
  }

  place(word) {
    const { width, height } = this.panel.getBoundingClientRect();
    const left = Math.min(Math.max(8, word.left + word.width / 2 - width / 2), innerWidth - width - 8);
    const above = word.top - height - 8;
    this.panel.style.left = `${left}px`;
    this.panel.style.top = `${above > 0 ? above : word.bottom + 8}px`;
  }

  hide() {
    this.panel.hidden = true;
  }

  reach(span) {
    if (this.current) this.current.tabIndex = -1;
    this.current = span;
    span.tabIndex = 0;
  }

  move(event) {
    const spans = [...this.list.querySelectorAll(".word")];
    const at = spans.indexOf(document.activeElement);
    if (at < 0) return;
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 };
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const item = document.activeElement.closest("li");
      const next = event.key === "ArrowDown" ? item.nextElementSibling : item.previousElementSibling;
      steps[event.key] = spans.indexOf(next?.querySelector(".word"));
    }
    if (event.key === "Escape") this.hide();
    const next = spans[steps[event.key]];
    if (!next) return;
    event.preventDefault();
    this.reach(next);
    next.focus();
  }

  atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 80;
  }
}
