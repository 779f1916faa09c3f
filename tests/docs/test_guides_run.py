"""Every command of the guides that can run here, run as it stands: servers and clients in a network
namespace, so that they have the ports which the guides give them; and why the others cannot."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import trustme
from attrs import frozen

from ssasr.models.catalogue import cache_directory
from tests.docs.test_guides import TOP, commands, python_samples
from tests.harness.isolated import Plan, Report, Service, can_isolate, run_isolated

pytestmark = pytest.mark.slow

SPEECH = TOP / "tests" / "data" / "speech.flac"
WAIT_TLS = (
    "curl -sf --retry 600 --retry-all-errors --retry-delay 1 --cacert ca.pem"
    " https://localhost:8080/ready"
)
TOKEN = (
    "curl -sf --cacert ca.pem -H 'Authorization: team-a'"
    " 'https://localhost:8080/v3/token?expires_in_seconds=60'"
)
READY = "curl http://localhost:8080/ready"
SECRET = (
    "curl -X POST http://localhost:8080/v1/realtime/client_secrets"
    " -H 'Authorization: Bearer self-hosted'"
)
FILE = (
    "curl http://localhost:8080/v1/audio/transcriptions -H 'Authorization: Bearer self-hosted'"
    " -F file=@talk.wav"
)


@frozen
class Guide:
    """Commands of a guide that belong together: servers, in order, with where each says that it
    is ready, then what is done with them."""

    servers: dict[str, str]
    commands: tuple[str, ...] = ()


GUIDES = {
    "one process": Guide(
        {".venv/bin/ssasr serve --port 8080": "http://localhost:8080/ready"},
        (READY, FILE, f"{FILE} -F response_format=srt"),
    ),
    "processes of their own": Guide(
        {
            "ssasr engine --model english --port 50051": "http://localhost:50051/ready",
            "ssasr gateway --asr-endpoint ws://localhost:50051 --engines english":
                "http://localhost:8080/ready",
        },
        (
            ".venv/bin/ssasr transcribe talk.wav",
            ".venv/bin/ssasr transcribe recordings/ --output subtitles/ --format srt --pace fast",
            "ls subtitles/talk.srt",
        ),
    ),
    "traces": Guide(
        {
            "ssasr engine --model english --otlp-endpoint http://localhost:4318":
                "http://localhost:50051/ready",
            "ssasr gateway --asr-endpoint ws://localhost:50051 --otlp-endpoint http://localhost:4318":
                "http://localhost:8080/ready",
        },
        (READY,),
    ),
    "OpenAI's endpoints": Guide(
        {".venv/bin/ssasr serve --port 8080": "http://localhost:8080/ready"},
        (
            *(f"{sys.executable} sample-{number}.py" for number in range(len(python_samples()))),
        ),
    ),
    "keys and TLS": Guide(
        {"ssasr serve --api-keys-file keys.txt --tls-certificate server.pem": ""},
        (
            WAIT_TLS,
            TOKEN,
        ),
    ),
    "webhooks and LLM": Guide(
        {
            "ssasr serve --webhook-hosts hooks.example.com --webhook-dir hooks"
            " --llm-gateway-url http://localhost:8000/v1": "http://localhost:8080/ready",
        },
        (SECRET,),
    ),
    "weights by hand": Guide(
        {"SSASR_MODELS_DIR=weights ssasr serve": "http://localhost:8080/ready"}, (READY,)
    ),
}  # fmt: skip
"""Beside the guides' commands there are a few that look at what came of them."""

CHECKOUT = {"cp .env.example .env"}
"""Run in a copy of the folder."""

NOT_HERE = {
    "ssasr serve --redaction true": "needs its extra; tests/gateway/redaction runs the process",
    "ssasr transcribe --redact ": "the same",
    "Capacity measured": "a line of the log",
    "aws ": "needs an account",
    "ssh ": "needs another machine",
    "nvidia-smi": "needs a GPU",
    "sudo systemctl": "needs systemd",
    "docker ": "needs a daemon; the files are checked in tests/docker, and run there as processes",
    "gunzip -c ssasr-images.tar.gz | docker load": "needs a daemon",
    "ssasr bench --find-capacity": "takes minutes; tests/bench",
    "kubectl ": "needs a cluster; the chart is rendered and validated in tests/docker",
    "helm install": "needs a cluster; rendered in test_guides.py",
    "git clone": "needs the network",
    "make demo": "make test installs; what it then does is test_the_demo_shows_the_words",
    "make install": "make test begins with it",
    "make serve": "the same as ssasr serve",
    ".venv/bin/pip wheel": "needs the package index, and gigabytes",
    "pip install --no-index": "installs what that has downloaded",
    "SSASR_CACHE=weights .venv/bin/ssasr models": "needs the package index; test_catalogue.py",
    "SSASR_MODELS_DIR=weights ssasr models verify": "test_weights_by_hand_are_verified",
    ".venv/bin/pip install -e '.[mic]' && .venv/bin/ssasr mic": "needs a microphone",
}


def elsewhere(command: str) -> bool:
    return any(command.startswith(prefix) for prefix in NOT_HERE)


def run_here() -> set[str]:
    guides = GUIDES.values()
    return CHECKOUT | {c for guide in guides for c in (*guide.servers, *guide.commands)}


def test_every_command_is_run_here_or_cannot_be():
    unknown = {c for c in commands() if not elsewhere(c)} - run_here()
    assert unknown == set(), "run it, or say why it cannot be run"
    assert not [c for c in run_here() if elsewhere(c)]
    assert len(set(commands()) & run_here()) >= 10


def test_what_cannot_be_run_is_in_the_guides():
    assert not [prefix for prefix in NOT_HERE if not any(c.startswith(prefix) for c in commands())]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What the guides suppose to be there: the command, recordings, keys, a certificate."""
    folder = tmp_path_factory.mktemp("guides")
    for place in (folder / ".venv" / "bin", folder / "recordings", folder / "weights"):
        place.mkdir(parents=True)
    command = folder / ".venv" / "bin" / "ssasr"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ssasr "$@"\n')
    command.chmod(0o755)
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    soundfile.write(folder / "talk.wav", samples[:rate], rate)
    soundfile.write(folder / "talk.mp3", samples, rate)
    for number, sample in enumerate(python_samples()):
        (folder / f"sample-{number}.py").write_text(sample)
    shutil.copy(folder / "talk.wav", folder / "recordings")
    (folder / "keys.txt").write_text("team-a 20\nteam-b\n")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder


def environment(checkout: Path) -> dict[str, str]:
    return {
        "PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(TOP),
        "SSASR_ENGINE_KIND": "scripted",
        "SSASR_DRAIN_SECONDS": "1",
    }


def as_argv(line: str, checkout: Path) -> list[str]:
    pairs = [f"{name}={value}" for name, value in environment(checkout).items()]
    return ["env", "-C", str(checkout), *pairs, "bash", "-c", line]


@pytest.fixture(scope="module", params=GUIDES)
def report(request, checkout: Path) -> Report:
    if not can_isolate():
        pytest.skip("needs the right to make network namespaces")
    guide = GUIDES[request.param]
    services = [
        Service(f"server {n}", as_argv(line, checkout), {"PATH": os.environ["PATH"]}, ready)
        for n, (line, ready) in enumerate(guide.servers.items())
    ]
    return run_isolated(
        Plan({}, services, [as_argv(line, checkout) for line in guide.commands])
    )  # fmt: skip


def test_commands_of_the_guides_do_what_they_should(report: Report):
    for ran in report.commands:
        assert ran.status == 0, (ran.argv[-1], ran.errors)
        assert ran.output.strip() or "--output" in ran.argv[-1], ran.argv[-1]
    assert set(report.statuses.values()) == {0}, report.logs


def test_the_example_is_copied_to_where_compose_looks(tmp_path: Path):
    shutil.copy(TOP / "docker" / ".env.example", tmp_path)
    subprocess.run("cp .env.example .env", shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / ".env").read_text() == (TOP / "docker" / ".env.example").read_text()


@pytest.mark.weights
def test_weights_by_hand_are_verified(checkout: Path, tmp_path: Path):
    (tmp_path / "weights").symlink_to(cache_directory())
    line = "SSASR_MODELS_DIR=weights ssasr models verify"
    argv = as_argv(line, checkout)
    argv[2] = str(tmp_path)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tiny.en: 4 files as they should be" in done.stdout


@pytest.mark.weights
def test_the_demo_shows_the_words():
    makefile = (TOP / "Makefile").read_text()
    (recipe,) = re.findall(r"^demo: .*\n\t@\$\(BIN\)/python (.*)$", makefile, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *recipe.split()], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    turns = re.findall(r"^\[turn \d+\] (.*)$", done.stdout, re.MULTILINE)
    readme = re.findall(r"^■ (.*)$", (TOP / "README.md").read_text(), re.MULTILINE)
    assert letters(" ".join(turns)) == letters(" ".join(readme))


def letters(text: str) -> str:
    """Without what a mark or a capital may change."""
    return "".join(filter(str.isalpha, text.lower()))
