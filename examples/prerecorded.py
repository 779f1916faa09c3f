"""Stream a recording in real time and print the words. Needs: pip install websockets soundfile

python prerecorded.py --audio-file talk.wav [--endpoint ws://localhost:8080] [--language en]
                      [--speech-model universal-streaming-english]
"""

import argparse
import json
import threading
import time
from urllib.parse import urlencode

import soundfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CHUNK_SECONDS = 0.1


def options():
    parser = argparse.ArgumentParser(description="Stream a recording to a speech server.")
    parser.add_argument("--audio-file", required=True, help="WAV, FLAC, OGG, MP3 …")
    parser.add_argument("--endpoint", default="ws://localhost:8080")
    parser.add_argument("--language", help="language code, or multi")
    parser.add_argument("--speech-model", help="for example universal-streaming-multilingual")
    return parser.parse_args()


def session_url(given, sample_rate):
    query = {"sample_rate": sample_rate, "format_turns": "true"}
    if given.language:
        query["language"] = given.language
    if given.speech_model:
        query["speech_model"] = given.speech_model
    return f"{given.endpoint}?{urlencode(query)}"


def send(websocket, sound):
    """Each chunk at the time it would have been spoken; then the end."""
    due = time.monotonic()
    for block in sound.blocks(int(sound.samplerate * CHUNK_SECONDS), dtype="int16", always_2d=True):
        websocket.send(block.mean(axis=1).astype("<i2").tobytes())
        due += CHUNK_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))
    websocket.send(json.dumps({"type": "Terminate"}))


def show(message):
    if message["type"] == "Begin":
        print(f"Session {message['id']}")
    elif message["type"] == "Turn":
        words = " ".join(word["text"] for word in message["words"])
        print(f"[{message['turn_order']}] {words}" if message["end_of_turn"] else f"... {words}")
    elif message["type"] == "Termination":
        print(f"{message['audio_duration_seconds']} s of audio")
    elif message["type"] == "Error":
        raise SystemExit(f"{message['error']} ({message['error_code']})")


def main():
    given = options()
    with soundfile.SoundFile(given.audio_file) as sound:
        headers = {"Authorization": "self-hosted"}
        with connect(session_url(given, sound.samplerate), additional_headers=headers) as websocket:
            threading.Thread(target=send, args=(websocket, sound), daemon=True).start()
            try:
                for text in websocket:
                    show(json.loads(text))
            except ConnectionClosed as closed:
                raise SystemExit(f"closed: {closed}") from None


if __name__ == "__main__":
    main()
