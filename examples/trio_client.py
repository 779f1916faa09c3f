"""The smallest whole client, with trio. Needs: pip install trio-websocket soundfile

python trio_client.py talk.wav [ws://localhost:8080/v3/ws]
"""

import json
import sys

import soundfile
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

CHUNK_SECONDS = 0.1


async def send(websocket, sound):
    for block in sound.blocks(int(sound.samplerate * CHUNK_SECONDS), dtype="int16", always_2d=True):
        await websocket.send_message(block.mean(axis=1).astype("<i2").tobytes())
        await trio.sleep(CHUNK_SECONDS)
    await websocket.send_message('{"type": "Terminate"}')


async def main(file, endpoint="ws://localhost:8080/v3/ws"):
    with soundfile.SoundFile(file) as sound:
        url = f"{endpoint}?sample_rate={sound.samplerate}&format_turns=true"
        headers = [(b"Authorization", b"self-hosted")]
        async with (
            open_websocket_url(url, extra_headers=headers) as websocket,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send, websocket, sound)
            while True:
                try:
                    message = json.loads(await websocket.get_message())
                except ConnectionClosed:
                    break
                if message["type"] == "Turn" and message["end_of_turn"]:
                    print(message["transcript"])
                elif message["type"] == "Error":
                    print(message["error"], file=sys.stderr)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
