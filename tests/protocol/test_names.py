"""The names in what a client gives as context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol.messages import UpdateConfiguration
from ssasr.protocol.names import MOST_NAMES, names_in
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import stream_options


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Did you say Anna, or Alexey?", ["Anna", "Alexey"]),
        ("He lives in New York. There is Kate’s house.", ["New York", "Kate"]),
        ("Thanks! Who is it? «Ivan»: Here.", []),
        ("so it is Émile Müller-Schmidt", ["Émile Müller-Schmidt"]),
        ("no names, I say, at Al's", []),
        ("东京 и Москва", ["Москва"]),
        ("", []),
    ],
)
def test_names_begin_with_a_capital_inside_of_a_sentence(text, names):
    assert names_in([text]) == tuple(names)


def test_of_many_names_the_last_ones_count():
    many = [f"it is Xa{number}" for number in range(2 * MOST_NAMES)]
    found = names_in(["it is Anna", *many, "it is Xa150"])
    assert len(found) == MOST_NAMES
    assert found[-2:] == (f"Xa{2 * MOST_NAMES - 1}", "Xa150")


@given(st.lists(st.text()))
def test_any_text_may_have_names(texts):
    assert all(name.strip() == name for name in names_in(texts))


def test_the_engine_is_given_the_names_of_the_last_questions():
    parameters = parse_parameters(
        "prompt=a+call+with+Flambeau&agent_context=who+is+Anna%3F&previous_context_n_turns=2"
    )
    assert stream_options(parameters).names == ("Flambeau", "Anna")
    for text in ("and Ivan", "and Olga"):
        parameters = parameters.updated(UpdateConfiguration(agent_context=text))
    assert stream_options(parameters).names == ("Flambeau", "Ivan", "Olga")
    parameters = parameters.updated(UpdateConfiguration(prompt=""))
    assert stream_options(parameters).names == ("Ivan", "Olga")


def test_no_turns_of_context_are_none():
    parameters = parse_parameters("agent_context=who+is+Anna%3F&previous_context_n_turns=0")
    assert stream_options(parameters).names == ()
