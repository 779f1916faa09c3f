// The sound as bars and the turns as blocks under it. Only what is in sight is drawn, at most once a
// picture: the canvas stays where it is while a box of the recordings' length scrolls beneath it.

import { colourOf } from "./speakers.js";

const BAR_MS = 80; // one message of audio
const SLOWEST = 12; // pixels a second of long recordings; short ones fill the width
const SHORTEST_MS = 15000; // what fills the width at first
const STRIP = 8; // pixels of the turns' blocks
const GAP = 6;

export class Timeline {
  /** `chosen(ms)`: called for a place that is clicked. */
  constructor(scroller, canvas, length, chosen) {
    this.scroller = scroller;
    this.canvas = canvas;
    this.length = length;
    this.levels = []; // 0 to 255, one for BAR_MS
    this.playhead = null;
    this.turns = [];
    this.following = true;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    scroller.addEventListener("click", (event) => chosen(this.timeAt(event.clientX)));
    new ResizeObserver(() => this.draw()).observe(scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** `level`: RMS of the audio that ended at `ms`. */
  add(ms, level) {
    const at = Math.max(0, Math.round(ms / BAR_MS) - 1);
    while (this.levels.length < at) this.levels.push(0);
    this.levels[at] = Math.min(255, Math.round(Math.sqrt(level) * 400));
    this.draw();
  }

  show(turns) {
    this.turns = turns;
    this.draw();
  }

  move(ms) {
    this.playhead = ms;
    if (ms !== null) this.reveal(ms);
    this.draw();
  }

  clear() {
    this.levels = [];
    this.turns = [];
    this.following = true;
    this.draw();
  }

  /** The levels as text, and back. */
  get waveform() {
    return this.levels.map((level) => String.fromCharCode(level ?? 0)).join("");
  }

  set waveform(text) {
    this.levels = [...text].map((character) => character.charCodeAt(0));
    this.draw();
  }

  get end() {
    const last = this.turns.at(-1)?.words.at(-1)?.end ?? 0;
    return Math.max(last, this.levels.length * BAR_MS);
  }

  timeAt(x) {
    const { left } = this.scroller.getBoundingClientRect();
    return (x - left + this.scroller.scrollLeft) / this.scale;
  }

  scrolled() {
    const { scrollLeft, scrollWidth, clientWidth } = this.scroller;
    this.following = scrollWidth - scrollLeft - clientWidth < 40;
    this.draw();
  }

  reveal(ms) {
    const { scrollLeft, clientWidth } = this.scroller;
    const x = ms * this.scale;
    if (x < scrollLeft || x > scrollLeft + clientWidth) this.scroller.scrollLeft = x - 40;
  }

  draw() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = undefined;
      this.paint();
    });
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.scroller;
    if (!width) return; // not in sight
    // Pixels a millisecond.
    this.scale = Math.max(width / Math.max(this.end, SHORTEST_MS), SLOWEST / 1000);
    this.length.style.width = `${Math.max(width, this.end * this.scale)}px`;
    if (this.following) this.scroller.scrollLeft = this.scroller.scrollWidth;
    const ratio = devicePixelRatio;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio) {
      this.canvas.width = width * ratio;
      this.canvas.height = height * ratio;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.translate(-this.scroller.scrollLeft, 0);
    const from = this.scroller.scrollLeft / this.scale;
    const seen = { from, to: from + width / this.scale, height };
    this.paintBars(pen, seen);
    this.paintTurns(pen, seen);
    this.paintPlayhead(pen, seen);
  }

  paintBars(pen, { from, to, height }) {
    const room = height - STRIP - GAP;
    const wide = BAR_MS * this.scale;
    pen.fillStyle = this.colour("--wave");
    pen.beginPath();
    const last = Math.min(this.levels.length, Math.ceil(to / BAR_MS));
    for (let i = Math.max(0, Math.floor(from / BAR_MS)); i < last; i++) {
      const tall = Math.max(2, ((this.levels[i] ?? 0) / 255) * room);
      pen.roundRect(i * wide, (room - tall) / 2, Math.max(1, wide * 0.6), tall, 1);
    }
    pen.fill();
  }

  paintTurns(pen, { from, to, height }) {
    for (let i = this.turns.length - 1; i >= 0; i--) {
      const { words, speaker, ended } = this.turns[i];
      if (!words.length || words[0].start > to) continue;
      if (words.at(-1).end < from) break;
      const name = speaker ? colourOf(speaker) : "accent";
      pen.fillStyle = this.colour(`--${name}`);
      pen.globalAlpha = ended ? 1 : 0.5;
      const x = words[0].start * this.scale;
      const wide = Math.max(2, words.at(-1).end * this.scale - x);
      pen.beginPath();
      pen.roundRect(x, height - STRIP, wide, STRIP, STRIP / 2);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  paintPlayhead(pen, { height }) {
    if (this.playhead === null) return;
    pen.fillStyle = this.colour("--ink");
    pen.fillRect(this.playhead * this.scale - 1, 0, 2, height);
  }

  colour(name) {
    return getComputedStyle(this.canvas).getPropertyValue(name);
  }
}
