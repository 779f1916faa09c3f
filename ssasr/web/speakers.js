// Labels of speakers as the page shows them: a letter, and one of six colours.

const COLOURS = 6;

const known = (label) => /^[A-Z]$/.test(label);

/** What stands in a badge. */
export const initialOf = (label) => (known(label) ? label : "?");

/** A class of style.css. */
export const colourOf = (label) =>
  known(label) ? `s${(label.charCodeAt(0) - 65) % COLOURS}` : "unknown";
