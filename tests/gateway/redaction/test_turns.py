"""What a session's Turns become."""

import pytest

from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.service import Redaction, policies_for
from ssasr.gateway.redaction.turns import settled
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.messages import RevisedTurn, Silence, SpeakerRevision, Turn, TurnWord
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.speech_models import EngineKind

RULES = Detector(None)
CARD = "My card is 4111 1111 1111 1111, thank you."


async def find(words, asked):
    return RULES.find(words)


def redactor(query="redact_pii=true&format_turns=true", using=find):
    parameters = parse_parameters(query)
    return Redaction(using).redactor(parameters, parameters.engine)


def turn(text, order=0, *, end=True, formatted=True):
    words = tuple(
        TurnWord(word, 100 * index, 100 * index + 90, 0.5, True)
        for index, word in enumerate(text.split())
    )
    return Turn(order, formatted, end, text, "", 0.9, words)


async def test_the_same_in_transcript_words_and_utterance():
    shown = await redactor()(turn(CARD))
    assert shown.transcript == shown.utterance == "My card is #### #### #### ####, thank you."
    assert " ".join(word.text for word in shown.words) == shown.transcript
    assert [(w.start, w.end, w.confidence) for w in shown.words] == [
        (w.start, w.end, w.confidence) for w in turn(CARD).words
    ]


async def test_names_of_policies_one_a_word():
    query = "redact_pii=true&redact_pii_sub=entity_name&format_turns=true"
    shown = await redactor(query + "&redact_pii_policies=credit_card_number")(turn(CARD))
    assert shown.transcript.count("[CREDIT_CARD_NUMBER]") == 4
    assert "[CREDIT_CARD_NUMBER]," in shown.transcript


async def test_unformatted_text_is_plain():
    shown = await redactor("redact_pii=true")(turn(CARD, formatted=False))
    assert shown.transcript == "my card is #### #### #### #### thank you"


async def test_a_number_that_goes_on_in_the_next_turn():
    each = redactor("redact_pii_policies=credit_card_number&format_turns=true")
    await each(turn("It is 4111 1111 11"))
    assert (await each(turn("11 1111, bye.", 1))).transcript == "#### ####, bye."
    assert (await each(turn("Card: 4111 1111 1111", 2))).transcript == "Card: #### #### ####"
    both = await each(turn("4111 1111 1111 1111.", 3))
    assert both.transcript == "#### #### #### ####."


async def test_a_number_of_its_own_though_the_turn_before_ends_with_another():
    """The two together are too long for it."""
    each = redactor("redact_pii_policies=us_social_security_number&format_turns=true")
    await each(turn("Order 123456789"))
    assert (await each(turn("078-05-1120, ok?", 1))).transcript == "####, ok?"


@pytest.mark.parametrize(
    ("policy", "first", "second", "shown"),
    [
        ("phone_number", "My phone number is four one five.", "Five five five, one two one two.",
         ("My phone number is #### #### ####.", "#### #### ####, #### #### #### ####.")),
        ("credit_card_number", "The card is 4111.", "1111 1111 1111, ok?",
         ("The card is ####.", "#### #### ####, ok?")),
        ("email_address", "My email is john dot smith.", "At gmail dot com, please.",
         ("My email is #### #### ####.", "#### #### #### ####, please.")),
        ("person_name", "My name is.", "Zeno, thanks.", ("My name is.", "####, thanks.")),
    ],
)  # fmt: skip
async def test_what_is_said_with_a_pause_long_enough_to_end_a_turn(policy, first, second, shown):
    each = redactor(f"redact_pii_policies={policy}&format_turns=true")
    turns = [await each(turn(first)), await each(turn(second, 1))]
    assert tuple(message.transcript for message in turns) == shown


async def test_a_partial_ends_before_what_may_be_part_of_something():
    each = redactor("redact_pii=true&include_partial_turns=true")
    text = "so what i would like to do today is pay with this card four one one"
    partial = await each(turn(text, end=False, formatted=False))
    assert partial.transcript == "so what i would like to do today"
    assert partial.utterance == ""
    assert await each(turn(text, end=False, formatted=False)) is None, "nothing new"


async def test_what_was_hidden_in_a_partial_stays_hidden():
    found = [*RULES.find(["my", "pin", "is", "1234"])]

    async def forgetful(words, asked):
        return found if len(words) == 14 else []

    each = redactor("redact_pii=true&include_partial_turns=true", forgetful)
    rest = " and now we go on talking about nothing in particular"
    assert "####" in (await each(turn("my pin is 1234" + rest, end=False))).transcript
    assert "####" in (await each(turn("my pin is 1234" + rest + " much"))).transcript


async def test_a_detector_that_fails_hides_everything():
    async def fails(words, asked):
        return None

    shown = await redactor(using=fails)(turn("hello there"))
    assert shown.transcript == "#### ####"


async def test_a_revision_of_speakers_has_the_texts_that_were_shown():
    each = redactor("redact_pii=true&format_turns=true&speaker_labels=true")
    said = turn(CARD)
    shown = await each(said)
    revised = await each(SpeakerRevision((RevisedTurn(0, "B", said.words),)))
    assert revised.revisions[0].words == shown.words


async def test_other_messages_pass():
    assert await redactor()(Silence(0, 1)) == Silence(0, 1)


def test_a_tail_that_is_linked_waits_whole():
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
    ]
    assert settled(words, [None] * len(words)) == 0


def test_a_hesitation_does_not_end_what_waits():
    words = [
        "this",
        "was",
        "all",
        "that",
        "we",
        "had",
        "to",
        "say",
        "my",
        "number",
        "is",
        "four",
        "one",
        "uh",
    ]
    words += ["um"] * 8
    assert settled(words, [None] * len(words)) == 11


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("redact_pii_policies=drug", "email_address"),
        ("redact_pii_policies=shoe_size", "shoe_size"),
        ("speech_model=u3-rt-pro&redact_pii=true", "en"),
        ("speech_model=u3-rt-pro&redact_pii=true&language_codes=%5B%22fr%22%5D", "en"),
    ],
)
def test_never_less_than_was_asked(query, named):
    parameters = parse_parameters(query)
    with pytest.raises(ClientFault) as refused:
        policies_for(parameters, parameters.engine)
    assert refused.value.code == 3006
    assert named in refused.value.text


def test_a_multilingual_model_that_is_told_english():
    query = "speech_model=u3-rt-pro&redact_pii=true&language_codes=%5B%22en%22%5D"
    assert "person_name" in policies_for(parse_parameters(query), EngineKind.MULTILINGUAL)


def test_another_model_of_names_was_not_measured():
    ours, other = Redaction(find).detected()["en"], Redaction(find, measured=False).detected()["en"]
    assert ours["credit_card_number"] == 1
    assert ours.keys() == other.keys()
    assert set(other.values()) == {None}


def test_an_english_engine_speaks_english_under_any_name():
    parameters = parse_parameters("speech_model=u3-rt-pro&redact_pii=true")
    assert "person_name" in policies_for(parameters, EngineKind.ENGLISH)
