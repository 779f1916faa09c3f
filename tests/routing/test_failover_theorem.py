"""The replay theorem, whole: whatever becomes of the engines, the client gets the same.

Real protocol, engine server, host, scheduler, client, failover, inference and turn policy, on
virtual time; only the sockets are memory and the recogniser is the scripted one, for which the same
audio gives the same words. Hypothesis chooses the audio, the parameters, what the client does when,
and what becomes of every engine in turn.
"""

import logging
from collections import Counter, deque
from contextlib import suppress
from urllib.parse import urlencode

import numpy as np
import pytest
import structlog
import trio
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ssasr.protocol.messages import Turn, UpdateConfiguration
from ssasr.protocol.parameters import parse_parameters
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.retry import RetryPolicy
from ssasr.runtime.handoff import HandoffChannel
from ssasr.session.inference import Endpoint, Inference, Samples, Settings
from ssasr.telemetry.metrics import Metrics
from tests.harness.memory_links import Fate, MemoryEngines

CRASH_POINTS, EXAMPLES = 1_000, 275
LONGEST = 1_000.0
"""Virtual seconds; some of the talks last twelve, and each loss some more."""
PATIENT = RetryPolicy(seconds=1e6, tries=1_000_000)


@frozen
class Talk:
    """What the client does: audio packets and, between them, other things; ``pace``: seconds of
    virtual time for a second of audio, 0 for as fast as it is taken."""

    query: str
    seed: int
    parts: tuple[tuple[float, float], ...]
    """Seconds of speech and of silence after it."""
    packet: int
    events: tuple[tuple[float, object], ...]
    """How far into the audio it happens, 0 to 1, and a dict of new parameters or "endpoint"."""
    pace: float

    def items(self):
        """What ``Inference`` hears."""
        random = np.random.default_rng(self.seed)
        pieces = []
        for speech, silence in self.parts:
            pitch = int(random.choice([1, 4, 16]))  # who speaks, for the scripted diarizer
            loud = random.normal(0, 3_000, int(speech * 16_000) // pitch + 1)
            pieces.append(np.repeat(loud, pitch))
            pieces.append(random.normal(0, 30, int(silence * 16_000)))
        samples = np.clip(np.concatenate(pieces), -32_000, 32_000).astype(np.int16)
        parameters = parse_parameters(self.query)
        packets = [samples[i : i + self.packet] for i in range(0, len(samples), self.packet)]
        for number, packet in enumerate(packets):
            for at, event in self.events:
                if int(at * len(packets)) != number:
                    continue
                if event == "endpoint":
                    yield Endpoint()
                else:
                    parameters = parameters.updated(UpdateConfiguration(**event))
                    yield Settings(parameters)
            yield Samples(packet.astype("<i2").tobytes())


@frozen
class Listener:
    """A client that is always ready."""

    sent: list

    def ready(self):
        return True

    def take(self, message):
        self.sent.append(message)


async def converse(engines, talk, metrics, policy):
    """Everything the client is sent."""
    engines = ResilientEngines(engines, metrics, policy)
    inputs, messages = HandoffChannel(16), HandoffChannel(256)
    sent = []
    inference = Inference(parse_parameters(talk.query), engines, metrics, inputs, messages)

    async def speak():
        for item in talk.items():
            await inputs.send(item)
            if isinstance(item, Samples) and talk.pace:
                await trio.sleep(talk.pace * len(item.pcm) / 32_000)
        inputs.close()

    async def listen():
        if talk.seed % 2:  # the fast path to the client
            messages.deliver_to(Listener(sent))
        with suppress(trio.EndOfChannel):
            while True:
                sent.append(await messages.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        nursery.start_soon(listen)
        with trio.fail_after(LONGEST):
            await inference.run("session", "en-default", lambda model: None)
            messages.close()
    return sent


def run(fates, talk, metrics, policy=PATIENT):
    """What the client is sent, and which fates came true."""
    engines = MemoryEngines(deque(fates), metrics=metrics)
    clock = MockClock(autojump_threshold=0)
    return trio.run(converse, engines, talk, metrics, policy, clock=clock), engines.happened


SILENCES = [0, 100, 160, 400, 1_000, 2_400]
CHANGES = [
    {"min_turn_silence": 100, "max_turn_silence": 160},
    {"max_turn_silence": 2_400, "end_of_turn_confidence_threshold": 1.0},
    {"max_turn_silence": 300},
    {"min_turn_silence": 1_000},
    {"end_of_turn_confidence_threshold": 0.2},
    {"vad_threshold": 0.9},
]


@st.composite
def talks(draw):
    silences = st.sampled_from(SILENCES)
    optional = {
        "min_turn_silence": silences,
        "max_turn_silence": silences,
        "end_of_turn_confidence_threshold": st.sampled_from([0, 0.4, 1]),
        "format_turns": st.booleans(),
        "language_detection": st.booleans(),
        "continuous_partials": st.booleans(),
        "interruption_delay": st.sampled_from([0, 500]),
        "include_partial_turns": st.booleans(),
        "vad_threshold": st.sampled_from([0, 0.5, 1]),
        "max_speakers": st.sampled_from([1, 2]),
    }
    labels = st.sampled_from([True, True, False])  # with room above what is asked for below
    models = ["universal-streaming-english", "universal-streaming-multilingual", "u3-rt-pro"]
    values = draw(
        st.fixed_dictionaries(
            {"speech_model": st.sampled_from(models), "speaker_labels": labels},
            optional=optional,
        )
    )
    speech = st.floats(0.05, 1.8)
    silence = st.sampled_from([0.0, 0.07, 0.3, 0.7, 1.4, 2.5])
    event = st.one_of(st.just("endpoint"), st.sampled_from(CHANGES))
    return Talk(
        urlencode(values),
        draw(st.integers(0, 1_000)),
        tuple(draw(st.lists(st.tuples(speech, silence), min_size=1, max_size=4))),
        draw(st.sampled_from([800, 1_600, 3_333, 16_000])),
        tuple(draw(st.lists(st.tuples(st.floats(0, 0.99), event), max_size=4))),
        draw(st.sampled_from([0, 0, 1.0])),
    )


@st.composite
def fates(draw):
    """Early ones more often: those that come during a replay, or before Opened."""
    messages = st.one_of(st.integers(0, 12), st.integers(0, 40), st.integers(10, 70))
    kinds = st.sampled_from(["cut", "cut", "cut", "mute", "drain", "drain, then cut"])
    crashes = st.builds(Fate, kinds, messages)
    refusals = st.builds(Fate, st.sampled_from(["busy", "away"]))
    later = st.lists(st.one_of(*[crashes] * 6, refusals), min_size=8, max_size=24)
    return [draw(crashes), *draw(later)]


@st.composite
def hard_departures(draw):
    """An engine that leaves, and more replacements that are lost half open than a budget allows."""
    lost = st.builds(Fate, st.just("cut"), st.integers(0, 1))
    drain = Fate("drain", draw(st.integers(2, 70)))
    return [drain, *draw(st.lists(lost, min_size=6, max_size=12))]


@pytest.fixture
def _no_logs():
    """Thousands of lost engines, each with its line."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.timeout(300)  # half a minute of one core, if there is one
@pytest.mark.usefixtures("_no_logs")
def test_whatever_happens_to_the_engines_the_client_gets_the_same_messages():
    happened = Counter()
    words = labelled = 0
    metrics = Metrics()

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(talks(), fates())
    def check(talk, doom):
        nonlocal words, labelled
        expected, _ = run([], talk, metrics)
        sent, came_true = run(doom, talk, metrics)
        assert sent == expected
        happened.update(came_true)
        ended = [m for m in sent if isinstance(m, Turn) and m.end_of_turn]
        words += sum(len(m.words) for m in ended)
        labelled += sum(m.speaker_label not in {None, "PENDING"} for m in ended)

    check()
    crashes = sum(happened[kind] for kind in ("cut", "mute", "drain", "drain, then cut"))
    print(happened, words, labelled)
    assert crashes >= CRASH_POINTS, happened
    assert words > 1_000, "there must be something to lose"
    assert labelled > 100, "and speakers to confuse"


@pytest.mark.usefixtures("_no_logs")
def test_an_engine_that_leaves_is_not_given_up_before_another_carries_the_stream():
    metrics = Metrics()
    moved = 0

    @settings(
        max_examples=25, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(talks(), hard_departures())
    def check(talk, doom):
        nonlocal moved
        talk = evolve(talk, pace=1.0)  # so that it lasts
        expected, _ = run([], talk, metrics)
        sent, came_true = run(doom, talk, metrics, RetryPolicy(seconds=5.0))
        assert sent == expected
        moved += came_true.count("cut") > RetryPolicy().tries

    check()
    assert moved >= 5
