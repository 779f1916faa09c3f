"""Clients of the public protocol: polite ones and rude ones."""

import json
from contextlib import asynccontextmanager

import numpy as np
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed

from ssasr.net.websocket_client import connect_websocket

KEY = "self-hosted"


@define
class Transcript:
    """Everything a server said, and how it ended."""

    messages: list = field(factory=list)
    close_code: int | None = None
    close_reason: str | None = None

    def of_type(self, name):
        return [message for message in self.messages if message.get("type") == name]

    @property
    def turns(self):
        return self.of_type("Turn")

    @property
    def finals(self):
        return [turn["transcript"] for turn in self.turns if turn["end_of_turn"]]


@asynccontextmanager
async def connect(url, *, key=KEY, **query):
    full = url + ("?" if query else "") + "&".join(f"{k}={v}" for k, v in query.items())
    headers = [] if key is None else [(b"Authorization", key.encode())]
    with trio.fail_after(60):
        async with connect_websocket(full, headers=headers, unread=4_096) as websocket:
            yield websocket


async def read_all(websocket, transcript=None):
    """Until the server closes."""
    transcript = transcript or Transcript()
    try:
        while True:
            transcript.messages.append(json.loads(await websocket.get_message()))
    except ConnectionClosed as closed:
        if closed.reason is not None:
            transcript.close_code = closed.reason.code
            transcript.close_reason = closed.reason.reason
    return transcript


def pieces(samples, size=1_600):
    """int16 samples as binary messages of ``size`` samples."""
    return [samples[i : i + size].astype("<i2").tobytes() for i in range(0, len(samples), size)]


async def converse(url, samples, *, size=1_600, terminate=True, key=KEY, **query):
    """Send everything as fast as it is taken, then Terminate; all that the server said."""
    async with connect(url, key=key, **query) as websocket:
        transcript = Transcript()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, websocket, transcript)
            try:
                for piece in pieces(samples, size):
                    await websocket.send_message(piece)
                if terminate:
                    await websocket.send_message(json.dumps({"type": "Terminate"}))
            except ConnectionClosed:
                pass
    return transcript


def speech_like(seconds, *, pause_every=3.0, pause=2.0, seed=0):
    """int16 noise bursts that the scripted recogniser takes for speech, with silences."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(int(seconds * 16_000), np.int16)
    at = 0.0
    while at < seconds:
        start, end = int(at * 16_000), int(min(seconds, at + pause_every) * 16_000)
        samples[start:end] = rng.normal(0, 3_000, end - start).clip(-32_768, 32_767)
        at += pause_every + pause
    return samples
