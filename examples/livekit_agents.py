"""LiveKit Agents with this server as its speech-to-text.
Needs: pip install livekit-plugins-assemblyai soundfile

In an agent, `speech_to_text` goes where any STT goes, `AgentSession(stt=..., llm=..., tts=...)`,
and the framework brings the audio. Here a recording stands for the caller, so that the example runs
alone:

    python livekit_agents.py --audio-file talk.wav [--endpoint ws://localhost:8080]
"""

import argparse
import asyncio

import aiohttp
import soundfile
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import assemblyai

FRAME_SECONDS = 0.02  # as LiveKit delivers


def speech_to_text(endpoint, http_session=None):
    """`base_url` is all that differs from the hosted service. An agent's worker has an HTTP session
    of its own; only a script has to bring one."""
    return assemblyai.STT(
        api_key="self-hosted",
        base_url=endpoint,
        model="universal-streaming-english",
        format_turns=True,
        http_session=http_session,
    )


async def speak(stream, file):
    with soundfile.SoundFile(file) as sound:
        size = int(sound.samplerate * FRAME_SECONDS)
        for block in sound.blocks(size, dtype="int16", always_2d=True):
            data = block.mean(axis=1).astype("<i2").tobytes()
            stream.push_frame(rtc.AudioFrame(data, sound.samplerate, 1, len(data) // 2))
            await asyncio.sleep(FRAME_SECONDS)
    stream.end_input()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--audio-file", required=True)
    parser.add_argument("--endpoint", default="ws://localhost:8080")
    given = parser.parse_args()
    async with aiohttp.ClientSession() as http_session:
        stream = speech_to_text(given.endpoint, http_session).stream()
        speaking = asyncio.create_task(speak(stream, given.audio_file))
        async for event in stream:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                print(event.alternatives[0].text)
        await speaking
        await stream.aclose()


if __name__ == "__main__":
    asyncio.run(main())
