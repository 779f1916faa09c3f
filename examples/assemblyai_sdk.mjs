// The unmodified `assemblyai` SDK for Node, with a temporary token. It takes wss:// addresses only:
// start the server with `--tls-certificate server.pem`, and tell Node whom to trust if the
// certificate is your own:
//
//   npm install
//   NODE_EXTRA_CA_CERTS=ca.pem node assemblyai_sdk.mjs talk.wav wss://localhost:8080
//
// The recording is a WAV file of 16-bit mono samples.

import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { AssemblyAI, StreamingTranscriber } from "assemblyai";

const [file, endpoint = "wss://localhost:8080"] = process.argv.slice(2);
const wav = await readFile(file);
const sampleRate = wav.readUInt32LE(24);
const samples = wav.subarray(wav.indexOf("data") + 8);

// A server of yours holds the key and hands tokens to browsers and phones.
const { streaming } = new AssemblyAI({
  apiKey: "self-hosted",
  streamingBaseUrl: endpoint.replace("wss:", "https:"),
});
let token;
try {
  token = await streaming.createTemporaryToken({ expires_in_seconds: 60 });
} catch (error) {
  const why = error.cause?.code ?? error.message;
  const untrusted = /CERT|SIGNATURE|ISSUER/.test(why);
  console.error(`no token from ${endpoint}: ${why}`);
  if (untrusted) console.error("NODE_EXTRA_CA_CERTS=ca.pem says whose certificates to trust");
  process.exit(1);
}

const transcriber = new StreamingTranscriber({
  websocketBaseUrl: `${endpoint}/v3/ws`,
  token,
  sampleRate,
  speechModel: "universal-streaming-english",
  formatTurns: true,
});
transcriber.on("turn", (turn) => {
  if (turn.end_of_turn) console.log(turn.transcript);
});
transcriber.on("error", (error) => {
  console.error(error.message);
  process.exitCode = 1;
});

await transcriber.connect();
const size = (sampleRate / 10) * 2;
for (let at = 0; at < samples.length; at += size) {
  transcriber.sendAudio(samples.subarray(at, at + size));
  await sleep(100);
}
await transcriber.close();
