"""A hundred thousand frames and parameter sets, seeded: each understood or refused with a code."""

import json
import random
from urllib.parse import urlencode

import pytest

from ssasr.protocol.client_link import ClientLink
from ssasr.protocol.close_codes import CLOSE_CODES
from ssasr.protocol.codec import CLIENT_TYPES
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import PARAMETERS
from ssasr.protocol.messages import Error, UpdateConfiguration
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import stream_options, turn_settings

FIELDS = sorted(UpdateConfiguration.__annotations__)
VALUES = [
    None,
    True,
    0,
    1,
    -1,
    400,
    0.5,
    1e308,
    10**400,
    "",
    "en",
    "true",
    "\ud800",
    [],
    ["en"],
    {},
]
TEXTS = ["", "true", "0", "1", "8000", "0.4", "-1", "nan", "[]", '["en"]', "[", "en", "opus", "é%"]


def mutated(rng, text):
    """Some characters changed, dropped or doubled."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at] + rng.choice(['"', "{", "\\", "\0", "é", "\ud800", "1", ""]) + text[at + 1 :]
        )
    return text


def random_frame(rng):
    if rng.random() < 0.3:
        return rng.randbytes(rng.choice([0, 1, 3, 100, 1_600, 3_200, 40_000]))
    fields = {rng.choice(FIELDS): rng.choice(VALUES) for _ in range(rng.randint(0, 3))}
    text = json.dumps({"type": rng.choice([*CLIENT_TYPES, "Nonsense", 3]), **fields})
    return mutated(rng, text) if rng.random() < 0.3 else text


def random_parameters(rng):
    return urlencode(
        [(rng.choice(list(PARAMETERS)), rng.choice(TEXTS)) for _ in range(rng.randint(0, 4))]
    )


@pytest.mark.slow
def test_random_frames():
    rng = random.Random(3)
    link, faults = None, 0
    for _ in range(100_000):
        if link is None:
            link = ClientLink(parse_parameters(rng.choice(["", "encoding=aac"])))
            link.begin("id", 1)
        try:
            link.receive(random_frame(rng))
        except ClientFault as fault:
            faults += 1
            link.send(Error(fault.text, fault.code)).encode()
            assert fault.code in CLOSE_CODES  # noqa: PT017 - every one of many faults is looked at
            link = None
        else:
            link = None if rng.random() < 0.05 else link
    assert faults > 10_000


@pytest.mark.slow
def test_random_parameters():
    rng = random.Random(4)
    accepted = 0
    for _ in range(100_000):
        try:
            parameters = parse_parameters(random_parameters(rng))
        except ClientFault:
            continue
        accepted += 1
        turn_settings(parameters)
        stream_options(parameters)
    assert accepted > 10_000
