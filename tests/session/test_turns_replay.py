"""The replay theorem, the policy's half: whatever arrives late, whatever engine is lost, the client
gets the same. And the promises that hold for any audio and any parameters."""

from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.protocol.client_link import ClientLink
from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import Word
from ssasr.protocol.settings import turn_settings
from ssasr.session.turns import TurnPolicy
from tests.harness.simulated_engine import Script, SimulatedSession

TEXTS = ["so", "Well,", "done.", "—", "really?", "U.S.", "and", "it's", "3.5", "wait..."]


@st.composite
def scripts(draw):
    """Words and gaps of all lengths, some noise, an end that may cut a word."""
    position, words, noise = draw(st.integers(0, 30_000)), [], []
    for _ in range(draw(st.integers(0, 9))):
        end = position + draw(st.integers(200, 9_000))
        if draw(st.integers(0, 7)) == 0:
            noise.append((position, end))
        else:
            words.append(Word(draw(st.sampled_from(TEXTS)), position, end, 0.5))
        position = end + draw(st.sampled_from([0, 300, 2_000, 7_000, 12_000, 30_000, 200_000]))
    tail = draw(st.integers(-2_000, 30_000))
    return Script(
        tuple(words),
        max(position + tail, 100),
        tuple(noise),
        lag=draw(st.sampled_from([None, 0, 4_000, 20_000])),
        eager=draw(st.booleans()),
        confidence=draw(st.sampled_from([None, 0.0, 1.0])),
    )


@st.composite
def queries(draw):
    silences = st.sampled_from([0, 100, 160, 400, 1_000, 2_400])
    optional = {
        "min_turn_silence": silences,
        "max_turn_silence": silences,
        "end_of_turn_confidence_threshold": st.sampled_from([0, 0.4, 1]),
        "format_turns": st.booleans(),
        "language_detection": st.booleans(),
        "continuous_partials": st.booleans(),
        "interruption_delay": st.sampled_from([0, 500]),
        "acknowledge_silence": st.booleans(),
        "include_partial_turns": st.booleans(),
        "vad_threshold": st.sampled_from([0, 0.5, 1]),
    }
    models = ["universal-streaming-english", "universal-streaming-multilingual", "u3-rt-pro"]
    values = draw(
        st.fixed_dictionaries({"speech_model": st.sampled_from(models)}, optional=optional)
    )
    return urlencode(values)


chunks = st.sampled_from([1_280, 2_560, 7_680])


def reconfigure(query):
    def action(policy, at):
        policy.configure(turn_settings(parse_parameters(query)), at)

    return action


@st.composite
def actions(draw, model):
    """Forced ends and live changes, at any position."""
    chosen = []
    for at in draw(st.lists(st.integers(1, 120_000), max_size=4)):
        query = urlencode({"speech_model": model, **draw(st.sampled_from(CHANGES))})
        chosen.append((at, draw(st.sampled_from([TurnPolicy.force, reconfigure(query)]))))
    return chosen


CHANGES = [{"max_turn_silence": 300}, {"format_turns": "true"}, {"min_turn_silence": 1_000}]


class LongWay(TurnPolicy):
    def _speaks_on(self, update):
        return False


def said(query, script, chunk, done, policy=TurnPolicy, **options):
    policy = policy(turn_settings(parse_parameters(query)), chunk=chunk)
    return SimulatedSession(policy, script, chunk, **options).run(done)


@settings(max_examples=80, deadline=None)
@given(st.data(), queries(), scripts(), chunks)
def test_neither_delay_nor_a_lost_engine_changes_the_messages(data, query, script, chunk):
    model = parse_parameters(query).speech_model
    done = data.draw(actions(model))
    random = data.draw(st.randoms(use_true_random=False))
    expected = said(query, script, chunk, done)

    def late():
        return random.random() < 0.7

    def crash():
        return random.random() < 0.1

    def ahead():
        return random.random() < 0.5

    assert said(query, script, chunk, done, late=late) == expected
    assert said(query, script, chunk, done, late=late, crash=crash, ahead=ahead) == expected


@settings(max_examples=80, deadline=None)
@given(st.data(), queries(), scripts(), chunks)
def test_the_fast_path_of_unchanged_speech_equals_the_slow_path(data, query, script, chunk):
    done = data.draw(actions(parse_parameters(query).speech_model))
    expected = said(query, script, chunk, done, policy=LongWay)
    assert said(query, script, chunk, done) == expected


@settings(max_examples=80, deadline=None)
@given(st.data(), queries(), scripts(), chunks)
def test_what_holds_for_every_session(data, query, script, chunk):
    parameters = parse_parameters(query)
    messages = said(query, script, chunk, data.draw(actions(parameters.speech_model)))
    link = ClientLink(parameters)
    link.begin("id", 1)
    floor, finals = (0, 0), ()
    for message in messages:
        link.send(message)  # raises where the order is broken
        if not isinstance(message, Turn):
            continue
        times = [(word.start, word.end) for word in message.words]
        assert all(start <= end for start, end in times)
        for before, after in zip([floor, *times], times, strict=False):
            assert before[0] <= after[0]
            assert before[1] <= after[1]
        now = tuple((w.start, w.end) for w in message.words if w.word_is_final)
        assert now[: len(finals)] == finals, "a final word moved or went away"
        finals = now
        if message.end_of_turn:
            assert message.words
            assert all(word.word_is_final for word in message.words)
            assert message.transcript == " ".join(word.text for word in message.words)
            floor, finals = times[-1], ()


@settings(max_examples=50, deadline=None)
@given(queries(), scripts(), chunks)
def test_every_word_is_sent_once(query, script, chunk):
    """A boundary is never inside a word unless the voice detector has a threshold that nothing
    reaches."""
    if "vad_threshold=1" in query:
        return
    messages = said(query, script, chunk, [])
    shown = [w.text for m in messages if isinstance(m, Turn) and m.end_of_turn for w in m.words]
    spoken = [w for w in script.words if (w.start + w.end) // 2 < script.length and w.text != "—"]
    assert len(shown) == len(spoken)
