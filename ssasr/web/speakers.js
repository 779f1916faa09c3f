// Labels of speakers as the page shows them: a letter, with the number of the session from the second
// on, and one of six colours.

const COLOURS = 6;

export const known = (label) => /^\d*[A-Z]$/.test(label);

/** What stands in a badge. */
export const initialOf = (label) => (known(label) ? label : "?");

/** A class of style.css. */
export function colourOf(label) {
  if (!known(label)) return "unknown";
  const session = parseInt(label, 10) || 1;
  return `s${(label.charCodeAt(label.length - 1) - 65 + 2 * (session - 1)) % COLOURS}`;
}
