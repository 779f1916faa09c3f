"""Options that do not fit together, and values that are none: one line that names what was given,
and exit status 2."""

import pytest

from ssasr.cli import commands as cli
from ssasr.cli.conflicts import RULES
from tests.harness.processes import ssasr

PUSH = ["--usage-push-url", "http://usage/", "--usage-dir", "/nowhere"]
GATEWAY = ["gateway", "--asr-endpoint", "ws://127.0.0.1:1"]
# By the option of the rule: arguments, environment, and what the message names.
CASES = {
    "tls_key": ([], {"SSASR_TLS_KEY": "k.pem"}, "SSASR_TLS_KEY needs --tls-certificate"),
    "api_keys": (
        ["--api-keys", "abc"], {"SSASR_API_KEYS_FILE": "f"}, "--api-keys and SSASR_API_KEYS_FILE"
    ),
    "max_connections_per_address": (
        ["--workers", "2"], {"SSASR_MAX_CONNECTIONS_PER_ADDRESS": "5"},
        "SSASR_MAX_CONNECTIONS_PER_ADDRESS and --workers",
    ),
    "usage_push_url": (["--usage-push-url", "https://x"], {}, "--usage-push-url needs --usage-dir"),
    "usage_push_token_file": (
        ["--usage-push-token-file", "f"], {}, "--usage-push-token-file needs --usage-push-url"
    ),
    "webhook_hosts": (["--webhook-hosts", "x"], {}, "--webhook-hosts needs --webhook-dir"),
    "webhook_dir": (["--webhook-dir", "x"], {}, "--webhook-dir needs --webhook-hosts"),
    "llm_gateway_key_file": (
        ["--llm-gateway-key-file", "f"], {}, "--llm-gateway-key-file needs --llm-gateway-url"
    ),
    "redaction_model": (
        ["--redaction-model", "m"], {"SSASR_REDACTION": "no"}, "--redaction-model needs --redaction"
    ),
    "licence_file": (["--licence-file", "f"], {}, "--licence-file needs --licence-key-file"),
    "licence_key_file": (
        [], {"SSASR_LICENCE_KEY_FILE": "f"},
        "SSASR_LICENCE_KEY_FILE needs --licence-file (or SSASR_LICENCE_FILE)",
    ),
    "asr_ca": (["--asr-ca", "ca.pem"], {}, "--asr-ca and --asr-endpoint"),
}  # fmt: skip


def refused(arguments, environment, monkeypatch, capsys):
    """The one line."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.exit_status(lambda: cli.run_command(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_every_rule_has_a_case():
    assert CASES.keys() | {"chunk_ms"} == {rule.option for rule in RULES}


@pytest.mark.parametrize(("arguments", "environment", "named"), CASES.values(), ids=CASES)
def test_a_conflict_is_refused(arguments, environment, named, monkeypatch, capsys):
    line = refused([*GATEWAY, *arguments], environment, monkeypatch, capsys)
    assert line.startswith(f"ssasr: {named}")


def test_a_step_is_for_a_model(monkeypatch, capsys):
    arguments = ["engine", "--model", "english", "--engine-kind", "scripted"]
    line = refused(arguments, {"SSASR_CHUNK_MS": "160"}, monkeypatch, capsys)
    assert line.startswith("ssasr: SSASR_CHUNK_MS and --engine-kind")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSASR_ENGINES", "english,french"),
        ("SSASR_ENGINES", "english,English"),
        ("SSASR_DEVICE", "gpu"),
        ("SSASR_LOG_FORMAT", "xml"),
        ("SSASR_PORT", "70000"),
    ],
)
def test_a_value_that_is_none_is_named_by_its_variable(variable, value, monkeypatch, capsys):
    assert f"{variable}: " in refused(["serve"], {variable: value}, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSASR_ASR_ENDPOINT", "http://127.0.0.1:1"),
        ("SSASR_OTLP_ENDPOINT", "nowhere"),
        ("SSASR_API_KEYS", " , "),
    ],
)
def test_so_is_one_that_only_its_user_understands(variable, value):
    result = ssasr("gateway", **{"SSASR_ASR_ENDPOINT": "ws://127.0.0.1:1", variable: value})
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ssasr: {variable}: ")


@pytest.mark.parametrize(
    ("variable", "content", "more"),
    [
        ("SSASR_API_KEYS_FILE", "", []),
        ("SSASR_API_KEYS_FILE", None, []),
        ("SSASR_TOKEN_SECRET_FILE", "short", []),
        ("SSASR_TOKEN_SECRET_FILE", None, []),
        ("SSASR_ENGINE_SECRET_FILE", "short", []),
        ("SSASR_TLS_CERTIFICATE", "no certificate", []),
        ("SSASR_TLS_CERTIFICATE", None, []),
        ("SSASR_LICENCE_FILE", "no licence", ["--licence-key-file", "/dev/null"]),
        ("SSASR_LLM_GATEWAY_KEY_FILE", None, ["--llm-gateway-url", "http://llm/v1"]),
        ("SSASR_LLM_GATEWAY_KEY_FILE", "\n", ["--llm-gateway-url", "http://llm/v1"]),
        ("SSASR_LLM_GATEWAY_KEY_FILE", "two\nlines", ["--llm-gateway-url", "http://llm/v1"]),
        ("SSASR_USAGE_PUSH_TOKEN_FILE", "", PUSH),
        ("SSASR_USAGE_PUSH_TOKEN_FILE", "schlüssel", PUSH),
        ("SSASR_USAGE_PUSH_TOKEN_FILE", None, PUSH),
        ("SSASR_ENGINE_SECRET_FILE", "long enough,\nbut two lines", []),
        ("SSASR_ASR_CA", "no certificate", ["--asr-endpoint", "wss://engines:1"]),
        ("SSASR_ASR_CA", None, ["--asr-endpoint", "wss://engines:1"]),
    ],
)
def test_a_file_that_is_none_is_named_by_its_variable(
    variable, content, more, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    status = cli.exit_status(lambda: cli.run_command([*GATEWAY, *more]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ssasr: {variable}: ")
    assert status == (1 if content is None else 2), "1: it may be there the next time"


def test_metrics_have_no_port_that_others_have(monkeypatch, capsys):
    line = refused(GATEWAY, {"SSASR_METRICS_PORT": "8080"}, monkeypatch, capsys)
    assert line == "ssasr: SSASR_METRICS_PORT and --port: both are 8080"


def test_case_means_nothing_where_it_means_nothing():
    arguments = ["serve", "--engines", "English", "--device", "CPU", "--log-format", "JSON"]
    command = cli.COMMANDS["serve"]
    values = cli.options.resolve(command.options, cli.parser().parse_args(arguments), {})
    shown = [values[name] for name in ("engines", "device", "log_format")]
    assert shown == [("english",), "cpu", "json"]
    model = next(each for each in cli.COMMANDS["engine"].options if each.flag == "--model")
    assert model.value("Multilingual", "--model") == "multilingual"
    assert model.value("/models/Mine", "--model") == "/models/Mine"
