"""An agent framework's service for OpenAI's realtime transcription, with the address changed and
nothing else, takes a recording and says its finals. Run by the environment of the frameworks:

openai_services.py pipecat|livekit RECORDING PORT
"""

import asyncio
import sys

import soundfile

SECONDS = 0.02
SILENCE = 1.2
"""Seconds after the recording, as of a caller who listens."""
ENOUGH = 10
"""Words that the service must have said before its pipeline ends."""
PATIENCE = 60
shown = 0


def blocks(recording):
    with soundfile.SoundFile(recording) as sound:
        size = int(sound.samplerate * SECONDS)
        spoken = [block.tobytes() for block in sound.blocks(size, dtype="int16")]
        return sound.samplerate, spoken + [bytes(2 * size)] * int(SILENCE / SECONDS)


def show(text):
    global shown
    shown += len(text.split())
    print("final", text, flush=True)


async def shown_enough():
    async with asyncio.timeout(PATIENCE):
        while shown < ENOUGH:
            await asyncio.sleep(0.05)


async def livekit(recording, port):
    from livekit import rtc
    from livekit.agents import stt
    from livekit.agents.utils import http_context
    from livekit.plugins import openai

    async def show_finals(stream):
        async for event in stream:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                show(event.alternatives[0].text)

    async with http_context.open():  # as a worker has
        service = openai.STT(
            api_key="self-hosted", base_url=f"http://127.0.0.1:{port}/v1", use_realtime=True
        )
        stream = service.stream()
        showing = asyncio.create_task(show_finals(stream))
        rate, frames = blocks(recording)
        for frame in frames:
            stream.push_frame(rtc.AudioFrame(frame, rate, 1, len(frame) // 2))
            await asyncio.sleep(SECONDS)
        await shown_enough()
        showing.cancel()
        await stream.aclose()


async def pipecat(recording, port):
    from pipecat.frames.frames import EndFrame, InputAudioRawFrame, TranscriptionFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.services.openai.stt import OpenAIRealtimeSTTService

    class Finals(FrameProcessor):
        async def process_frame(self, frame, direction):
            await super().process_frame(frame, direction)
            if isinstance(frame, TranscriptionFrame):
                show(frame.text)
            await self.push_frame(frame, direction)

    rate, frames = blocks(recording)
    service = OpenAIRealtimeSTTService(
        api_key="self-hosted",
        base_url=f"ws://127.0.0.1:{port}/v1/realtime",
        turn_detection={"type": "server_vad"},
    )
    params = PipelineParams(audio_in_sample_rate=rate)
    task = PipelineTask(Pipeline([service, Finals()]), params=params)

    async def speak():
        for frame in frames:
            await task.queue_frame(InputAudioRawFrame(frame, rate, 1))
            await asyncio.sleep(SECONDS)
        await shown_enough()
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner().run(task), speak())


if __name__ == "__main__":
    asyncio.run({"livekit": livekit, "pipecat": pipecat}[sys.argv[1]](*sys.argv[2:]))
