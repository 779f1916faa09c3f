// What the page shows besides the transcript.

import { percentile } from "./latency.js";

export const $ = (id) => document.getElementById(id);

export const STATES = {
  idle: "Ready",
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Reconnecting; nothing you say is lost",
  finishing: "Finishing",
};

export function meter(level, peak) {
  // -60 dBFS to 0 dBFS, as the ear hears it.
  const share = (value) => Math.max(0, 1 + Math.log10(Math.max(value, 1e-3)) / 3);
  $("level").style.setProperty("--level", share(level).toFixed(3));
  $("level").style.setProperty("--peak", share(peak).toFixed(3));
  $("level").classList.toggle("clipped", peak > 0.99);
}

/** Of the last 200 words: the median and the 95th percentile. */
export function figures(latency) {
  for (const name of ["first", "final", "turn"]) {
    const values = latency[name].slice(-200);
    const [half, most] = [0.5, 0.95].map((fraction) => percentile(values, fraction));
    const rest = document.createElement("small");
    if (half !== undefined) rest.textContent = `p95 ${most.toFixed(0)}`;
    $(`lag-${name}`).replaceChildren(half === undefined ? "–" : `${half.toFixed(0)} ms `, rest);
  }
}

export function notice(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

export function announce(message) {
  $("announce").textContent = message;
}

/** `then(key)`: called if one is given. */
export function askKey(then) {
  const dialog = $("key-dialog");
  $("key").value = "";
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "open") return;
    then($("key").value.trim());
  };
  dialog.showModal();
}
