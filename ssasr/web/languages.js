// The models and languages on offer, with the names that people use.

export const MODELS = {
  "universal-streaming-english": { name: "English, word by word", english: true },
  "universal-streaming-multilingual": { name: "Many languages, word by word" },
  "whisper-rt": { name: "Many languages, detected" },
  "universal-3-6-pro": { name: "Many languages, sentence by sentence" },
};

const CODES =
  "af ar az be bg bs ca cs cy da de el en es et fa fi fr gl he hi hr hu hy id is it ja kk kn ko " +
  "lt lv mi mk mr ms ne nl no pl pt ro ru sk sl sr sv sw ta th tl tr uk ur vi zh";

/** [code, name in the visitor's language], by name. */
export function languages() {
  const names = new Intl.DisplayNames(navigator.languages, { type: "language" });
  return CODES.split(" ")
    .map((code) => [code, names.of(code)])
    .sort(([, a], [, b]) => a.localeCompare(b));
}
