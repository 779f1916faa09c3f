// The transcript as a file.

import { FORMATS, text } from "./subtitles.js";

/** Raises what the browser does if it does not allow it. */
export const copy = (turns) => navigator.clipboard.writeText(text(turns));

export function download(turns, format) {
  const [write, type] = FORMATS[format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(turns)], { type }));
  link.download = `transcript.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
