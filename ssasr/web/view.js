// The transcript on the page: a paragraph a turn, a span a word, and one panel that tells about the
// word under the pointer or the focus. The transcript is one stop of the tab key; arrows move in it.

import { spaceBetween } from "./joining.js";
import { colourOf, initialOf, known } from "./speakers.js";

const SURE = 0.85; // confidence from which on a word has no shade
const SHADES = 4;

const clock = (ms) => {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};
const inSeconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
const percent = (value) => `${Math.round(value * 100)} %`;

/** 0 (sure, or not known) to SHADES. */
function doubt({ final, confidence }) {
  if (!final || confidence <= 0 || confidence >= SURE) return 0;
  return Math.min(SHADES, 1 + Math.floor(((SURE - confidence) / SURE) * 2 * SHADES));
}

export class TranscriptView {
  /** `chosen(word)`: called for a word that is clicked, or with Enter. */
  constructor(list, panel, scroller, chosen) {
    this.list = list;
    this.panel = panel;
    this.scroller = scroller;
    this.chosen = chosen;
    this.shown = new Map(); // turn id to { item, time, who, text, meta, words: [{ gap, span, … }] }
    this.facts = new WeakMap(); // span to word
    this.current = null; // the span that the tab key reaches
    list.addEventListener("pointerover", ({ target }) => this.describe(target));
    list.addEventListener("pointerleave", () => this.hide());
    list.addEventListener("focusin", ({ target }) => this.describe(target));
    list.addEventListener("focusout", () => this.hide());
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("click", ({ target }) => this.choose(target));
    scroller.addEventListener("scroll", () => this.hide(), { passive: true });
  }

  clear() {
    this.list.replaceChildren();
    this.list.classList.remove("voices");
    this.shown.clear();
    this.current = this.marked = null;
    this.hide();
  }

  update(turn) {
    const following = this.atEnd();
    if (!turn.words.length) return this.remove(turn);
    const entry = this.shown.get(turn.id) ?? this.add(turn);
    let speaker = turn.speaker;
    turn.words.forEach((word, i) => {
      const own = word.speaker ?? speaker;
      this.word(entry, i, word, turn.words[i - 1], own !== speaker ? own : null);
      speaker = own;
    });
    for (const { gap, span } of entry.words.splice(turn.words.length)) {
      gap.remove();
      span.remove();
    }
    entry.item.classList.toggle("open", !turn.ended);
    entry.time.textContent = clock(turn.words[0].start);
    this.speaker(entry, turn);
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
    const [time, who, meta] = ["time", "who", "end"].map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
    const text = document.createElement("p");
    who.hidden = true;
    meta.setAttribute("role", "meter");
    meta.setAttribute("aria-valuemin", 0);
    meta.setAttribute("aria-valuemax", 100);
    meta.setAttribute("aria-label", "End-of-turn confidence");
    item.append(time, who, text, meta);
    this.list.append(item);
    const entry = { item, time, who, text, meta, words: [] };
    this.shown.set(turn.id, entry);
    return entry;
  }

  /** `begins`: the speaker who begins in mid-turn with this word, or null. */
  word(entry, i, word, before, begins) {
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
    const name = `word${word.final ? " final" : ""} d${doubt(word)}`;
    const look = begins ? `${name} begins ${colourOf(begins)}` : name;
    if (span.className !== look) span.className = look;
    if (begins) span.dataset.speaker = initialOf(begins);
    else if (span.dataset.speaker) delete span.dataset.speaker;
    this.facts.set(span, word);
  }

  speaker({ who }, turn) {
    who.hidden = !turn.speaker;
    if (!turn.speaker) return;
    this.list.classList.add("voices");
    who.textContent = initialOf(turn.speaker);
    who.className = `who ${colourOf(turn.speaker)}`;
    who.title = known(turn.speaker) ? `Speaker ${turn.speaker}` : "Speaker not known yet";
  }

  confidence({ meta }, turn) {
    const value = turn.confidence ?? 0;
    meta.textContent = `end ${percent(value)}`;
    meta.style.setProperty("--value", value);
    meta.setAttribute("aria-valuenow", Math.round(value * 100));
    meta.title = `End-of-turn confidence${turn.ended ? " when the turn ended" : ""}`;
  }

  // -- one word ----------------------------------------------------------------------------------

  describe(target) {
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

  choose(target) {
    const word = this.facts.get(target);
    if (word) this.chosen(word);
  }

  /** The word that sounds at the moment; null: none. `turn`, `index`: which one it is. */
  mark(turn, index) {
    const span = turn ? this.shown.get(turn.id)?.words[index]?.span : null;
    if (span === this.marked) return;
    this.marked?.classList.remove("sounding");
    span?.classList.add("sounding");
    this.marked = span;
  }

  reach(span) {
    if (this.current) this.current.tabIndex = -1;
    this.current = span;
    span.tabIndex = 0;
  }

  key(event) {
    const at = document.activeElement;
    if (!this.facts.has(at)) return;
    if (event.key === "Escape") this.hide();
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.choose(at);
    }
    const next = this.beside(at, event.key);
    if (!next) return;
    event.preventDefault();
    this.reach(next);
    next.focus();
  }

  beside(at, key) {
    const item = at.closest("li");
    const first = (li) => li?.querySelector(".word");
    const last = (li) => [...(li?.querySelectorAll(".word") ?? [])].at(-1);
    switch (key) {
      case "ArrowRight": return at.nextElementSibling ?? first(item.nextElementSibling);
      case "ArrowLeft": return at.previousElementSibling ?? last(item.previousElementSibling);
      case "ArrowDown": return first(item.nextElementSibling);
      case "ArrowUp": return first(item.previousElementSibling);
      case "Home": return first(this.list.firstElementChild);
      case "End": return last(this.list.lastElementChild);
    }
  }

  atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 80;
  }
}
