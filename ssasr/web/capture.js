// Runs in the browser's audio thread: float samples in, messages of 16-bit PCM out. No buffer is
// allocated while it runs but the ones that are given away.

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.size = processorOptions.samples;
    this.begin();
  }

  begin() {
    this.pcm = new DataView(new ArrayBuffer(this.size * 2));
    this.filled = 0;
    this.peak = 0;
    this.energy = 0;
  }

  process([[channel]]) {
    if (!channel) return true; // nothing is connected yet
    for (const sample of channel) {
      const value = Math.max(-1, Math.min(1, sample));
      this.pcm.setInt16(this.filled * 2, Math.round(value * (value < 0 ? 32768 : 32767)), true);
      this.peak = Math.max(this.peak, Math.abs(value));
      this.energy += value * value;
      if (++this.filled === this.size) this.deliver();
    }
    return true;
  }

  deliver() {
    const { buffer } = this.pcm;
    const level = Math.sqrt(this.energy / this.size);
    this.port.postMessage({ pcm: buffer, level, peak: this.peak }, [buffer]);
    this.begin();
  }
}

registerProcessor("capture", Capture);
