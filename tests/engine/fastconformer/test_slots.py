"""The rings: whatever a stream has written is there for as long as it may be needed, going back
included, and nobody else's is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.fastconformer.config import EncoderConfig, ModelConfig
from ssasr.engine.fastconformer.slots import Layout, SlotCache, Slots

ENCODER = EncoderConfig(4, 2, 2, 8, 80, 7)
SLOTS, REWIND = 3, 2


class Written:
    """What every slot was given, chunk by chunk: the specification."""

    def __init__(self, chunk_frames):
        self.layout = Layout(ModelConfig(ENCODER, 9, 8, 4, 1), SLOTS, chunk_frames, REWIND)
        self.slots = Slots.allocate(self.layout, torch.device("cpu"), torch.float32)
        self.past = {(slot, kind): [] for slot in range(SLOTS) for kind in ("keys", "inputs")}
        self.at = [0] * SLOTS
        self.furthest = [0] * SLOTS
        self._fresh = 0.0

    def new(self, width):
        self._fresh += 1.0
        return torch.full((self.layout.chunk_frames, width), self._fresh)

    def step(self, chosen):
        """The next chunk of these slots, together."""
        frames, dim = self.layout.chunk_frames, ENCODER.hidden_size
        first = torch.tensor([self.at[slot] * frames for slot in chosen])
        cache = SlotCache.of(self.slots, torch.tensor(chosen), first)
        for kind, width, exchange, past in (
            ("keys", 2 * dim, cache.attention, self.layout.left),
            ("inputs", dim, cache.convolution, ENCODER.conv_context),
        ):
            new = [self.new(width) for _ in chosen]
            found = exchange(1, torch.stack(new))
            for row, slot in enumerate(chosen):
                kept = self.past[slot, kind]
                del kept[self.at[slot] :]
                kept.append(new[row])
                expected = torch.cat(kept)[-(past + frames) :]
                assert torch.equal(found[row, -len(expected) :], expected)
        for slot in chosen:
            self.at[slot] += 1
            self.furthest[slot] = max(self.furthest[slot], self.at[slot])

    def go_back(self, slot, chunks):
        self.at[slot] = max(0, self.furthest[slot] - REWIND, self.at[slot] - chunks)


@given(st.sampled_from([1, 2, 4]), st.data())
@settings(max_examples=60, deadline=None)
def test_the_past_is_there(chunk_frames, data):
    written = Written(chunk_frames)
    subsets = st.lists(st.sampled_from(range(SLOTS)), min_size=1, unique=True)
    for _ in range(data.draw(st.integers(1, 25))):
        written.step(data.draw(subsets))
        written.go_back(data.draw(st.sampled_from(range(SLOTS))), data.draw(st.integers(0, 2)))


@pytest.mark.parametrize("chunk_frames", [1, 2, 4])
def test_the_past_is_there_after_going_back_as_far_as_may_be(chunk_frames):
    written = Written(chunk_frames)
    for _ in range(20):
        written.step([0, 2])
    written.go_back(0, REWIND)
    for _ in range(REWIND):
        written.step([2, 0])
