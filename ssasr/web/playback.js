// The sound of this page's recordings, for listening to it again. It is kept as blobs, which the
// browser may move to disk: an hour is 115 MB.

const RATE = 16000; // Hz that are enough to listen to
const PIECE_SECONDS = 10;
const BATCH_MS = 30000; // read and played at once

/** Pieces { start, rate, samples, parts }: `start` in ms, `parts` PCM or one blob. */
export class Sound {
  constructor() {
    this.pieces = [];
  }

  /** 16-bit PCM that begins at `start` ms; it goes on where the last one ended, or after a gap. */
  add(pcm, rate, start) {
    const factor = Math.max(1, Math.floor(rate / RATE));
    const kept = factor === 1 ? pcm : thinned(new Int16Array(pcm), factor).buffer;
    let piece = this.pieces.at(-1);
    const end = piece ? piece.start + (piece.samples / piece.rate) * 1000 : 0;
    if (!piece || piece.sealed || piece.rate !== rate / factor || Math.abs(end - start) > 100) {
      if (piece) seal(piece);
      piece = { start, rate: rate / factor, samples: 0, parts: [] };
      this.pieces.push(piece);
    }
    piece.parts.push(kept);
    piece.samples += kept.byteLength / 2;
    if (piece.samples >= PIECE_SECONDS * piece.rate) seal(piece);
  }

  has(ms) {
    return this.pieces.some((piece) => ms >= piece.start && ms < endOf(piece));
  }

  /** From `from` to `to` ms, or to the end of what is there: an AudioBuffer, or null. */
  async read(from, to, context) {
    const first = this.pieces.find((piece) => from >= piece.start && from < endOf(piece));
    if (!first) return null;
    const buffer = context.createBuffer(1, Math.ceil(((to - from) / 1000) * first.rate), first.rate);
    const track = buffer.getChannelData(0);
    for (const piece of this.pieces) {
      if (piece.rate !== first.rate || piece.start >= to || endOf(piece) <= from) continue;
      const samples = new Int16Array(await new Blob(piece.parts).arrayBuffer());
      const skip = Math.round(((piece.start - from) / 1000) * first.rate);
      for (let i = Math.max(0, -skip); i < samples.length && i + skip < track.length; i++) {
        track[i + skip] = samples[i] / 32768;
      }
    }
    return buffer;
  }
}

const endOf = ({ start, samples, rate }) => start + (samples / rate) * 1000;

function seal(piece) {
  if (!piece.sealed) piece.parts = [new Blob(piece.parts)];
  piece.sealed = true;
}

/** Every `factor` samples their mean. */
function thinned(samples, factor) {
  const kept = new Int16Array(Math.floor(samples.length / factor));
  for (let i = 0; i < kept.length; i++) {
    let sum = 0;
    for (let j = 0; j < factor; j++) sum += samples[i * factor + j];
    kept[i] = sum / factor;
  }
  return kept;
}

export class Player {
  /** `moved(ms)`: called for each picture while it plays, and with null at the end. */
  constructor(sound, moved) {
    this.sound = sound;
    this.moved = moved;
    this.playing = false;
  }

  /** Plays until `to` ms, or what is there. */
  async play(from, to) {
    this.stop();
    const mine = (this.run = {});
    this.context ??= new AudioContext();
    this.playing = true;
    let at = from;
    while (at < to && this.run === mine) {
      const until = Math.min(to, at + BATCH_MS);
      const buffer = await this.sound.read(at, until, this.context);
      if (!buffer || this.run !== mine) break;
      await this.once(buffer, at, mine);
      at = until;
    }
    if (this.run === mine) this.stop();
  }

  once(buffer, from, mine) {
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    this.context.resume();
    this.source = source;
    const begun = this.context.currentTime;
    const follow = () => {
      if (this.run !== mine || this.source !== source) return;
      this.moved(from + Math.max(0, this.context.currentTime - begun) * 1000);
      requestAnimationFrame(follow);
    };
    return new Promise((resolve) => {
      source.onended = resolve;
      source.start();
      follow();
    });
  }

  stop() {
    this.run = null;
    this.source?.stop();
    this.source = null;
    if (this.playing) this.moved(null);
    this.playing = false;
  }
}
