"""docs/protocol.md says what the code does: every name of the code is in its table, and the
reverse."""

import re
from pathlib import Path

import attrs
import pytest

from ssasr.protocol import messages
from ssasr.protocol.close_codes import CLOSE_CODES, END_CAUSES
from ssasr.protocol.codec import CLIENT_TYPES, SERVER_TYPES
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import ENCODINGS, PARAMETERS
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.speech_models import SPEECH_MODELS, EngineKind, Family
from ssasr.routing.models import Offer

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def tables(heading):
    """The tables under a heading, as lists of rows of cells, without their heads."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [[[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
            for table in found]  # fmt: skip


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_parameters():
    (rows,) = tables("Parameters")
    assert [names(row[0])[0] for row in rows] == list(PARAMETERS)
    for name, kind, limits, _, live, effect in rows:
        known = PARAMETERS[names(name)[0]]
        assert kind == known.kind.value, name
        assert live == ("yes" if known.live else "no"), name
        assert effect.startswith("none: ") != known.effect, name
        if known.choices:
            assert tuple(names(limits)) == known.choices, name
        elif known.high is not None:
            counted = known.kind.value in ("string", "list of strings")
            expected = f"at most {known.high}" if counted else f"{known.low}–{known.high}"
            assert limits == expected, name


# What is wished for by these is refused or chosen, not kept under the parameter's name.
ELSEWHERE = {"speech_model", "redact_pii"}
DEFAULTS = [r for r in tables("Parameters")[0] if r[3] and names(r[0])[0] not in ELSEWHERE]


@pytest.mark.parametrize("row", DEFAULTS, ids=lambda row: row[0])
def test_defaults(row):
    name = names(row[0])[0]
    texts = row[3].replace("`", "").split(" / ")
    for text, model in zip(texts * 2, ["universal-streaming-english", "u3-rt-pro"], strict=False):
        value = getattr(parse_parameters(f"speech_model={model}"), name)
        shown = {None: "never" if name == "inactivity_timeout" else "none"}.get(value, str(value))
        assert shown.lower() == text.lower(), model


def test_default_speech_model():
    (row,) = [row for row in tables("Parameters")[0] if row[0] == "`speech_model`"]
    assert names(row[3]) == [parse_parameters("").speech_model]


def test_speech_models():
    (rows, _) = tables("Speech models")
    documented = {
        names(name)[0]: (family, engine, text.startswith("always"))
        for name, family, engine, text in rows
    }
    assert documented == {
        name: (model.family.value, model.engine.value, model.always_formatted)
        for name, model in SPEECH_MODELS.items()
    }


@pytest.mark.parametrize(("kind", "column"), [("english", 1), ("multilingual", 2)])
def test_which_engine_serves_a_name_where_only_one_runs(kind, column):
    rows = {"": []} | {names(row[0])[0]: row for row in tables("Speech models")[1] if names(row[0])}
    (of_p,) = [row for row in tables("Speech models")[1] if not names(row[0])]
    offer = Offer((EngineKind(kind),))
    for name, model in SPEECH_MODELS.items():
        row = of_p if model.family is Family.P else rows[name]
        parameters = parse_parameters(f"speech_model={name}")
        if row[column].startswith("refused"):
            with pytest.raises(ClientFault):
                offer.kind_for(parameters)
        else:
            assert row[column].startswith(kind)
            assert offer.kind_for(parameters) is EngineKind(kind)
    german = parse_parameters("speech_model=u3-rt-pro&language_codes=[%22de%22]")
    if kind == "english":
        with pytest.raises(ClientFault):
            offer.kind_for(german)


def test_encodings():
    assert tuple(names(row[0])[0] for row in tables("Audio")[0]) == ENCODINGS


def fields(cls):
    """As the page writes them: ? marks what may be left out."""
    return [
        f"`{field.name}`" + ("?" if field.default is None else "") for field in attrs.fields(cls)
    ]


def test_messages():
    documented = {names(row[0])[0] for row in tables("Messages from the client")[0]}
    assert documented == set(CLIENT_TYPES)
    (rows,) = tables("Messages to the client")
    assert {names(row[0])[0] for row in rows} == set(SERVER_TYPES)
    for name, listed in rows:
        assert listed.split(", ") == fields(SERVER_TYPES[names(name)[0]])
    prose = " ".join(PAGE.split())
    assert ", ".join(fields(messages.TurnWord)) in prose
    assert ", ".join(fields(messages.BeginConfiguration)) in prose


def test_close_codes():
    codes, causes = tables("Close codes")
    assert {int(code): (reason, fault, retry) for code, reason, fault, retry in codes} == {
        int(code): (entry.reason, entry.at_fault.value, "yes" if entry.retry else "no")
        for code, entry in CLOSE_CODES.items()
    }
    assert {names(cause)[0]: int(code) for cause, code in causes} == {
        cause.value: int(code) for cause, code in END_CAUSES.items()
    }
