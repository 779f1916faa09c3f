// Words to text: with a space between two of them, where their script has spaces.
// `ssasr/protocol/joining.py` has the same rule; `tests/data/joined_words.json` holds both to it.

const WIDE =
  /[\u{2e80}-\u{303f}\u{3040}-\u{30ff}\u{31f0}-\u{31ff}\u{3400}-\u{4dbf}\u{4e00}-\u{9fff}\u{f900}-\u{faff}\u{ff00}-\u{ff9f}\u{20000}-\u{323af}]/u;
const NARROW = /[\u{e00}-\u{eff}\u{1000}-\u{109f}\u{1780}-\u{17ff}\u{aa60}-\u{aa7f}]/u;

const unspaced = (character) => WIDE.test(character) || NARROW.test(character);

/** What stands between two words: a space or nothing. */
export function spaceBetween(before, after) {
  if (!before || !after) return "";
  const last = [...before].at(-1);
  const [first] = after;
  return unspaced(last) || unspaced(first) ? "" : " ";
}

export function join(words) {
  let text = "";
  let last = "";
  for (const word of words) {
    text += spaceBetween(last, word) + word;
    last = word || last;
  }
  return text;
}

/** How wide the text is, in Latin letters. */
export const columns = (text) =>
  [...text].reduce((sum, character) => sum + (WIDE.test(character) ? 2 : 1), 0);
