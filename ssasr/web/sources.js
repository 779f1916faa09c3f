// Where audio comes from. A source has a `rate` and calls `deliver({ pcm, level, peak })` for each
// message of about MESSAGE_SECONDS of mono 16-bit PCM, at the moment its last sample was captured.

import { Trouble } from "./plain_words.js";

const MESSAGE_SECONDS = 0.08; // the protocol wants 50 to 1000 ms
const FILE_RATE = 16000; // what the models hear; sending more would change nothing

export class Microphone {
  waiting = "Waiting for the microphone";

  /** `device`: which one, or "". */
  constructor(device) {
    this.device = device;
    this.ended = () => {};
  }

  /** Asks for permission. Throws a Trouble. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Trouble("insecure");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        // Made for calls; each of them changes what the models hear, the gain too.
        audio: {
          echoCancellation: false,
          noiseSuppression: false,
          autoGainControl: false,
          ...(this.device && { deviceId: this.device }),
        },
      });
    } catch (error) {
      throw Trouble.ofMicrophone(error);
    }
    this.context = new AudioContext(); // at the device's own rate
    this.rate = this.context.sampleRate;
    await this.context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    for (const track of this.stream.getAudioTracks()) track.onended = () => this.ended();
  }

  start(deliver) {
    const source = this.context.createMediaStreamSource(this.stream);
    const node = new AudioWorkletNode(this.context, "capture", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { samples: Math.round(this.rate * MESSAGE_SECONDS) },
    });
    node.port.onmessage = ({ data }) => deliver(data);
    source.connect(node);
    this.nodes = [source, node]; // a node nobody holds may be collected
    this.context.resume();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.context?.close();
    this.context = this.stream = null; // stopping twice is harmless
  }
}

/** The devices there are; none before one of them may be used. */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter(({ kind, label }) => kind === "audioinput" && label);
}

/** A file, delivered in real time. */
export class Recording {
  waiting = "Reading the file";

  constructor(file, aloud) {
    this.file = file;
    this.aloud = aloud;
    this.rate = FILE_RATE;
    this.ended = () => {};
  }

  /** Decodes whatever the browser can. Throws a Trouble. */
  async open() {
    try {
      const decoder = new OfflineAudioContext(1, 1, FILE_RATE);
      this.sound = await decoder.decodeAudioData(await this.file.arrayBuffer());
    } catch {
      throw new Trouble("undecodable", this.file.name);
    }
    this.samples = mono(this.sound);
  }

  start(deliver) {
    const size = Math.round(this.rate * MESSAGE_SECONDS);
    const begun = performance.now();
    let sent = 0;
    if (this.aloud) this.play();
    const tick = () => {
      // A hidden tab's timers are slow; what is due by now is sent at once.
      const due = ((performance.now() - begun) / 1000) * this.rate;
      while (sent < this.samples.length && sent + size <= due) {
        deliver(toMessage(this.samples.subarray(sent, sent + size)));
        sent += size;
      }
      if (sent >= this.samples.length) {
        clearInterval(this.timer);
        this.ended();
      }
    };
    this.timer = setInterval(tick, 20);
  }

  play() {
    this.context = new AudioContext();
    const player = this.context.createBufferSource();
    player.buffer = this.sound;
    player.connect(this.context.destination);
    player.start();
  }

  stop() {
    clearInterval(this.timer);
    this.context?.close();
    this.context = null;
  }
}

function mono(sound) {
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += samples[i] / sound.numberOfChannels;
  }
  return mixed;
}

function toMessage(samples) {
  const pcm = new DataView(new ArrayBuffer(samples.length * 2));
  let peak = 0;
  let energy = 0;
  samples.forEach((sample, i) => {
    const value = Math.max(-1, Math.min(1, sample));
    // The inverse of Chromium's own scaling: a 16-bit file's samples leave unchanged.
    pcm.setInt16(i * 2, Math.round(value * (value < 0 ? 32768 : 32767)), true);
    peak = Math.max(peak, Math.abs(value));
    energy += value * value;
  });
  return { pcm: pcm.buffer, level: Math.sqrt(energy / samples.length), peak };
}
