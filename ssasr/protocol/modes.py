"""What ``mode`` stands for: the patience of a session, in one word (the hosted service's table)."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import asdict, frozen


@frozen
class Patience:
    """Milliseconds, and how likely it must be that the speaker has finished. A value that the
    client gives itself wins over its mode's."""

    min_turn_silence: int
    max_turn_silence: int
    interruption_delay: int
    end_of_turn_confidence_threshold: float

    def values(self) -> dict[str, int]:
        """By the names of the parameters."""
        return asdict(self)


MODES: Mapping[str, Patience] = MappingProxyType(
    {
        "min_latency": Patience(128, 640, 0, 0.2),
        "balanced": Patience(128, 1_280, 500, 0.4),
        "max_accuracy": Patience(512, 2_560, 500, 0.6),
    }
)
WITHOUT_U = Patience(400, 1_280, 500, 0.4)
"""Of family U, where no mode is given."""
WITHOUT_P = Patience(100, 1_000, 500, 0.4)
"""Of family P, where no mode is given: what its clients count on, although ``Begin`` calls it
``balanced``."""
SPEAKERS_P = Patience(640, 768, 500, 0.4)
"""Of family P with ``speaker_labels``, whatever the mode."""
SPEAKERS_P_VAD = 0.5
SPEAKERS_P_TURN = 10.0
"""Seconds that a turn of such a session lasts at most."""
