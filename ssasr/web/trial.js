// A microphone that is open before Start, to see its level and to choose among several.

import { meter, notice } from "./panel.js";
import { Microphone, microphones } from "./sources.js";

export class Trial {
  constructor(button, choice, choiceField) {
    this.button = button;
    this.choice = choice;
    this.choiceField = choiceField;
    this.open = null; // the microphone
    choice.addEventListener("change", () => this.open && this.start());
  }

  toggle() {
    if (this.open) this.stop();
    else this.start();
  }

  async start() {
    this.stop();
    const mine = (this.open = new Microphone(this.choice.value));
    notice("");
    try {
      await mine.open();
      if (this.open !== mine) return mine.stop();
      mine.ended = () => this.stop();
      this.button.setAttribute("aria-pressed", true);
      mine.start(({ level, peak }) => meter(level, peak));
      await this.offerDevices();
    } catch (error) {
      this.stop();
      notice(error.message);
    }
  }

  stop() {
    this.open?.stop();
    this.open = null;
    this.button.setAttribute("aria-pressed", false);
    meter(0, 0);
  }

  /** Which microphones there are is known once one of them may be used. */
  async offerDevices() {
    const devices = await microphones();
    const chosen = this.choice.value;
    this.choice.replaceChildren(...devices.map((each) => new Option(each.label, each.deviceId)));
    if (devices.some(({ deviceId }) => deviceId === chosen)) this.choice.value = chosen;
    this.choiceField.hidden = devices.length < 2;
  }
}
