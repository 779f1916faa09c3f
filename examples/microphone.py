"""Stream the microphone and print the words. Needs: pip install websockets sounddevice, and the
PortAudio library (apt-get install libportaudio2). `ssasr mic` does more.

    python microphone.py [--endpoint ws://localhost:8080] [--language en] [--speech-model M]
"""

import argparse
import json
from urllib.parse import urlencode

import sounddevice
from websockets.sync.client import connect

SAMPLE_RATE = 16_000


def options():
    parser = argparse.ArgumentParser(description="Stream the microphone to a speech server.")
    parser.add_argument("--endpoint", default="ws://localhost:8080")
    parser.add_argument("--language", help="language code, or multi")
    parser.add_argument("--speech-model", help="for example universal-streaming-multilingual")
    return parser.parse_args()


def main():
    given = options()
    query = {"sample_rate": SAMPLE_RATE, "format_turns": "true"}
    query |= {"language": given.language} if given.language else {}
    query |= {"speech_model": given.speech_model} if given.speech_model else {}
    url = f"{given.endpoint}?{urlencode(query)}"
    with connect(url, additional_headers={"Authorization": "self-hosted"}) as websocket:
        stream = sounddevice.RawInputStream(
            samplerate=SAMPLE_RATE,
            blocksize=SAMPLE_RATE // 10,
            channels=1,
            dtype="int16",
            callback=lambda audio, *_: websocket.send(bytes(audio)),
        )
        with stream:
            print("Speak; Ctrl-C ends.")
            try:
                for text in websocket:
                    show(json.loads(text))
            except KeyboardInterrupt:
                pass
        websocket.send(json.dumps({"type": "Terminate"}))
        for text in websocket:  # what was said last
            show(json.loads(text))


def show(message):
    if message["type"] == "Turn" and message["end_of_turn"]:
        print(message["transcript"])
    elif message["type"] == "Error":
        raise SystemExit(f"{message['error']} ({message['error_code']})")


if __name__ == "__main__":
    main()
