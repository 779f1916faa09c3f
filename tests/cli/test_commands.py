"""The command as users meet it: help, usage errors, refused starts, clean stops."""

import signal
import socket

import pytest

from ssasr.cli import client, options
from ssasr.cli import commands as cli
from ssasr.cli.options import Option
from ssasr.cli.processes.public_side import PublicConfig, address_of
from ssasr.errors import UsageError
from ssasr.gateway.gateway import GatewayLimits
from tests.conftest import JFK
from tests.harness.processes import Program, free_port, server, ssasr

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_every_option_and_its_variable(command):
    text = ssasr(command, "--help").stdout
    for option in cli.COMMANDS[command].options:
        assert option.flag in text
        assert option.variable in "".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (["serve", "--port", "http"], {}, "--port"),
        (["serve", "--port", "70000"], {}, "70000"),
        (["serve", "--max-streams", "0"], {}, "--max-streams"),
        (["serve", "--engines", "english,klingon"], {}, "klingon"),
        (["serve", "--engine-kind", "magic"], {}, "magic"),
        (["serve", "--nonsense"], {}, "--nonsense"),
        (["serve"], {"SSASR_PORT": "x"}, "SSASR_PORT"),
        (["serve"], {"SSASR_PROT": "8080"}, "SSASR_PROT"),
        ([], {}, "COMMAND"),
    ],
)
def test_wrong_usage_is_status_2_and_names_the_culprit(arguments, environment, word):
    result = ssasr(*arguments, **environment)
    assert result.returncode == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("host", "certificate", "address"),
    [
        ("0.0.0.0", None, "http://localhost:8080/"),
        ("*", "server.pem", "https://localhost:8080/"),
        ("192.0.2.7", None, "http://192.0.2.7:8080/"),
        ("2001:db8::7", None, "http://[2001:db8::7]:8080/"),
    ],
)
def test_a_server_says_what_to_open(host, certificate, address):
    config = PublicConfig(host, 0, (), GatewayLimits(), "key", tls_certificate=certificate)
    assert address_of(config, 8_080) == address


def test_a_port_in_use_is_one_line_and_status_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ssasr("serve", "--engine-kind", "scripted", "--host", "127.0.0.1", "--port", port)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("ssasr: cannot listen on")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_and_clean_stop(number):
    with server("--engine-kind", "scripted", "--engines", "english") as (program, _):
        assert program.stop(number) == 0
        assert program.stderr.count("Ready to serve!") == 1


def test_missing_weights_are_one_line_and_status_1(tmp_path):
    result = ssasr("serve", "--engines", "english", "--port", free_port(),
                   SSASR_CACHE=str(tmp_path), PIP_NO_INDEX="1", HF_HUB_OFFLINE="1")  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("ssasr: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such-file.wav"], "no such file"),
        ([__file__], "no audio that can be read"),
        ([JFK, "--endpoint", "http://localhost"], "not a ws:// or wss:// address"),
        ([JFK, "--endpoint", "ws://127.0.0.1:9"], "cannot connect"),
    ],
)
def test_transcribe_refuses_in_one_line(arguments, text):
    result = ssasr("transcribe", *arguments)
    assert result.returncode == 1
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_transcribe_against_a_server():
    with server("--engine-kind", "scripted") as (_, port):
        endpoint = f"ws://127.0.0.1:{port}/v3/ws"
        plain = ssasr("transcribe", JFK, "--pace", "fast", "--endpoint", endpoint)
        assert plain.returncode == 0
        assert "[turn 0]" in plain.stdout
        lines = ssasr("transcribe", JFK, "--pace", "fast", "--json", "--endpoint", endpoint).stdout
        assert lines.splitlines()[0].startswith('{"type":"Begin"') or '"Begin"' in lines
        assert '"Termination"' in lines.splitlines()[-1]
        refused = ssasr("transcribe", JFK, "--endpoint", endpoint, "--api-key", "wrong")
        assert refused.returncode == 1
        assert "1008" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_command_line_wins_over_the_environment():
    option = Option("--port", "", 8_080, options.port)
    given = cli.parser().parse_args(["serve", "--port", "1"])
    assert options.resolve([option], given, {"SSASR_PORT": "2"}) == {"port": 1}
    given = cli.parser().parse_args(["serve"])
    assert options.resolve([option], given, {"SSASR_PORT": "2"}) == {"port": 2}
    assert options.resolve([option], given, {}) == {"port": 8_080}


def test_flags_by_value():
    assert options.boolean("TRUE")
    assert not options.boolean("off")
    with pytest.raises(ValueError, match="neither"):
        options.boolean("neither")
    with pytest.raises(UsageError):
        Option("--x", "", parse=options.seconds).value("nan", "--x")


def test_program_reports_its_stderr():
    program = Program(["serve", "--port", "x"]).start()
    assert program.wait() == 2
    assert "--port" in program.stderr


@pytest.mark.parametrize(
    ("language", "sent"),
    [
        (None, {"language": None, "language_codes": None}),
        ("de", {"language": "de", "language_codes": None}),
        ("de, en", {"language": "multi", "language_codes": '["de", "en"]'}),
    ],
)
def test_one_language_or_several(language, sent):
    values = {
        "speech_model": None, "language": language, "format_turns": True, "keyterms": (),
    }  # fmt: skip
    assert sent.items() <= client.session_parameters(values).items()
