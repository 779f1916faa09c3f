"""``--keyterms``."""

import pytest

from ssasr.cli import client, commands, options
from ssasr.client.connection import session_url
from ssasr.client.keyterms import read_keyterms
from ssasr.protocol.parameters import parse_parameters


def test_terms_come_with_commas_between_or_from_a_file(tmp_path):
    assert read_keyterms("Kubernetes, drip coffee ,") == ("Kubernetes", "drip coffee")
    file = tmp_path / "terms.txt"
    file.write_text("# ours\nKubernetes\n\n drip coffee\n", "utf-8")
    assert read_keyterms(str(file)) == ("Kubernetes", "drip coffee")
    assert read_keyterms("AC/DC,TCP/IP,.NET") == ("AC/DC", "TCP/IP", ".NET")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("a," * 101, "101 terms"), ("a" * 51, "longer"), ("/nowhere/terms", "no file"),
        ("~/terms", "no file"), ("mine.txt", "no file"),
    ],
)  # fmt: skip
def test_what_the_server_would_refuse_or_pass_over_is_said_at_once(given, problem):
    with pytest.raises(ValueError, match=problem):
        read_keyterms(given)


def test_a_file_that_is_no_text_is_a_readable_error(tmp_path):
    file = tmp_path / "terms.bin"
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="cannot read"):
        read_keyterms(str(file))


def test_they_reach_the_session():
    given = commands.parser().parse_args(["transcribe", "x.wav", "--keyterms", "Straße,O'Neil"])
    values = options.resolve(commands.COMMANDS["transcribe"].options, given, {})
    query = session_url("ws://x/v3/ws", client.session_parameters(values)).partition("?")[2]
    assert parse_parameters(query).keyterms == ("Straße", "O'Neil")
