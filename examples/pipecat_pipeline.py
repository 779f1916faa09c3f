"""Pipecat with this server as its speech-to-text.
Needs: pip install "pipecat-ai[assemblyai]" soundfile

In a bot, the service goes between `transport.input()` and the rest. Here a recording stands for the
caller, so that the example runs alone:

    python pipecat_pipeline.py --audio-file talk.wav [--endpoint ws://localhost:8080]
"""

import argparse
import asyncio

import soundfile
from pipecat.frames.frames import EndFrame, InputAudioRawFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.assemblyai.stt import AssemblyAISTTService

FRAME_SECONDS = 0.02


def speech_to_text(endpoint):
    """`api_endpoint_base_url`, with the path, is all that differs from the hosted service.
    `vad_force_turn_endpoint=False`: the server decides where turns end."""
    return AssemblyAISTTService(
        api_key="self-hosted",
        api_endpoint_base_url=f"{endpoint}/v3/ws",
        vad_force_turn_endpoint=False,
    )


class Printer(FrameProcessor):
    async def process_frame(self, frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            print(frame.text, flush=True)
        await self.push_frame(frame, direction)


async def speak(task, sound):
    size = int(sound.samplerate * FRAME_SECONDS)
    for block in sound.blocks(size, dtype="int16", always_2d=True):
        data = block.mean(axis=1).astype("<i2").tobytes()
        await task.queue_frame(InputAudioRawFrame(data, sound.samplerate, 1))
        await asyncio.sleep(FRAME_SECONDS)
    silence = InputAudioRawFrame(bytes(2 * size), sound.samplerate, 1)
    for _ in range(100):  # as a caller who has finished and listens
        await task.queue_frame(silence)
        await asyncio.sleep(FRAME_SECONDS)
    await task.queue_frame(EndFrame())


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--audio-file", required=True)
    parser.add_argument("--endpoint", default="ws://localhost:8080")
    given = parser.parse_args()
    with soundfile.SoundFile(given.audio_file) as sound:
        params = PipelineParams(audio_in_sample_rate=sound.samplerate)
        pipeline = Pipeline([speech_to_text(given.endpoint), Printer()])
        task = PipelineTask(pipeline, params=params)
        await asyncio.gather(PipelineRunner().run(task), speak(task, sound))


if __name__ == "__main__":
    asyncio.run(main())
