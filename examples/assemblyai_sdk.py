"""The unmodified `assemblyai` SDK for Python. Needs: pip install "assemblyai>=1.0" soundfile

Only `api_host` differs from the hosted service (SDKs before 0.62 build wss:// addresses only, so
they need TLS in front of the server).

    python assemblyai_sdk.py --audio-file talk.wav [--endpoint ws://localhost:8080]
                             [--speech-model universal-streaming-english]
"""

import argparse
import time

import soundfile
from assemblyai.streaming.v3 import (
    StreamingClient,
    StreamingClientOptions,
    StreamingEvents,
    StreamingParameters,
)

CHUNK_SECONDS = 0.1


def chunks(sound):
    for block in sound.blocks(int(sound.samplerate * CHUNK_SECONDS), dtype="int16", always_2d=True):
        yield block.mean(axis=1).astype("<i2").tobytes()
        time.sleep(CHUNK_SECONDS)


def on_turn(_, turn):
    if turn.end_of_turn:
        print(turn.transcript)


def on_error(_, error):
    print(f"error: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--audio-file", required=True)
    parser.add_argument("--endpoint", default="ws://localhost:8080")
    parser.add_argument("--speech-model", default="universal-streaming-english")
    given = parser.parse_args()

    client = StreamingClient(StreamingClientOptions(api_key="self-hosted", api_host=given.endpoint))
    client.on(StreamingEvents.Turn, on_turn)
    client.on(StreamingEvents.Error, on_error)
    with soundfile.SoundFile(given.audio_file) as sound:
        client.connect(
            StreamingParameters(
                sample_rate=sound.samplerate, speech_model=given.speech_model, format_turns=True
            )
        )
        try:
            client.stream(chunks(sound))
        finally:
            client.disconnect(terminate=True)


if __name__ == "__main__":
    main()
