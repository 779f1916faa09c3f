"""What a ``Heartbeat`` says; the session decides when. Pure: ``now`` is an argument."""

from collections.abc import Iterable

from ssasr.protocol.messages import Heartbeat
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.session.transcript import probability

HEARTBEAT_PERIOD = 5.0
"""Seconds between two, as reported of the hosted service."""


class HeartbeatLog:
    """Of one session, which began at ``began`` (seconds, the clock of ``beat``'s ``now``)."""

    def __init__(self, began: float) -> None:
        self.began = began
        self._loudest = 0.0

    def update(self, speech: Iterable[float]) -> None:
        """Speech probabilities, as they come with the engine's updates."""
        self._loudest = max([self._loudest, *speech])

    def beat(self, samples: int, processed: int, now: float) -> Heartbeat:
        """``samples``: audio received so far, at 16 kHz; ``processed``: up to where an engine has
        listened. The speech probability is the highest since the last beat."""
        seconds = max(now - self.began, 0.0)
        loudest, self._loudest = self._loudest, 0.0
        return Heartbeat(
            total_audio_received_ms=samples * 1_000 // SAMPLE_RATE,
            total_duration_ms=int(seconds * 1_000),
            realtime_factor=round(samples / SAMPLE_RATE / seconds, 3) if seconds else 0.0,
            max_speech_probability=probability(loudest),
            total_audio_processed_ms=processed * 1_000 // SAMPLE_RATE,
        )
