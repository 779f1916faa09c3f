// What a session may be asked for, as far as this server offers it.

import { MODELS, languages } from "./languages.js";

const MOST_TERMS = 100;

export class Settings {
  /** `fields`: the page's elements by name. `changed(configuration)`: what may change while a
   *  session runs has changed. */
  constructor(fields, changed) {
    this.fields = fields;
    this.redactable = {};
    const { model, language, keyterms } = fields;
    language.append(...languages().map(([code, name]) => new Option(name, code)));
    for (const each of [model, language]) each.addEventListener("change", () => this.adapt());
    keyterms.addEventListener("change", () => changed({ keyterms_prompt: this.terms }));
  }

  /** `server`: the content of server.json. */
  offer(server) {
    const models = server.speech_models.filter((name) => MODELS[name]);
    this.fields.model.replaceChildren(...models.map((name) => new Option(MODELS[name].name, name)));
    this.redactable = server.redaction;
    this.adapt();
  }

  /** While a recording runs, only the key terms may change. */
  lock(busy) {
    this.busy = busy;
    this.adapt();
  }

  adapt() {
    const { model, language, redaction, redactionField, speakers, device } = this.fields;
    for (const each of [model, redaction, speakers, device]) each.disabled = this.busy;
    language.disabled = this.busy || this.english;
    const spoken = this.english ? "en" : language.value;
    redactionField.hidden = !(spoken in this.redactable);
  }

  get english() {
    return Boolean(MODELS[this.fields.model.value]?.english);
  }

  get terms() {
    const terms = this.fields.keyterms.value.split(/[,;\n]/).map((term) => term.trim());
    return terms.filter(Boolean).slice(0, MOST_TERMS);
  }

  /** Of the query, for audio of `rate` Hz. */
  parameters(rate) {
    const { model, language, redaction, redactionField, speakers } = this.fields;
    const all = {
      sample_rate: Math.round(rate),
      encoding: "pcm_s16le",
      speech_model: model.value,
      format_turns: "true",
      session_heartbeat: "true",
    };
    if (language.value && !this.english) all.language_codes = JSON.stringify([language.value]);
    if (this.terms.length) all.keyterms_prompt = JSON.stringify(this.terms);
    if (speakers.checked) all.speaker_labels = "true";
    if (redaction.value && !redactionField.hidden) {
      all.redact_pii = "true";
      all.redact_pii_sub = redaction.value;
    }
    return all;
  }
}
