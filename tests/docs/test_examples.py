"""Every example runs as it stands, against a server with the scripted engine, and prints the same
words as ``ssasr transcribe``. ``make test`` brings what they need: Node's packages in
``examples/node_modules``, the agent frameworks in an environment of their own because they pin
other versions of our libraries (``FRAMEWORKS_PYTHON`` names another one)."""

import os
import shutil
import ssl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

import pytest
import soundfile
import trustme

from tests.harness.processes import Program, free_port, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"


@pytest.fixture(scope="module")
def endpoint():
    with server("--engine-kind", "scripted", "--engines", "english,multilingual") as (_, port):
        yield f"ws://localhost:{port}"


@pytest.fixture(scope="module")
def words(endpoint):
    """What was said, without the punctuation that some options leave out."""
    command = [sys.executable, "-m", "ssasr", "transcribe", SPEECH, "--pace", "fast",
               "--endpoint", f"{endpoint}/v3/ws", "--format", "text"]  # fmt: skip
    return plain(run(*command))


def run(*command, **environment):
    environment = os.environ | {"PYTHONWARNINGS": "ignore"} | environment
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=90,
        env=environment, cwd=EXAMPLES,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def plain(text):
    return text.replace(".", "").split()


def test_every_example_is_run_here():
    """But the microphone's, which needs one."""
    source = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.*py"):
        assert path.name == "microphone.py" or f'"{path.name}"' in source, path.name


@pytest.mark.parametrize("options", [(), ("--language", "en"), ("--speech-model", "whisper-rt")])
def test_prerecorded(endpoint, words, options):
    output = run(
        sys.executable, "prerecorded.py", "--audio-file", SPEECH, "--endpoint", endpoint, *options
    )
    finals = [line.partition("] ")[2] for line in output.splitlines() if line.startswith("[")]
    assert plain(" ".join(finals)) == words


def test_microphone_compiles():
    compile((EXAMPLES / "microphone.py").read_text(), "microphone.py", "exec")


def test_trio(endpoint, words):
    assert plain(run(sys.executable, "trio_client.py", SPEECH, f"{endpoint}/v3/ws")) == words


def test_assemblyai_sdk_for_python(endpoint, words):
    arguments = ("--audio-file", SPEECH, "--endpoint", endpoint)
    assert plain(run(sys.executable, "assemblyai_sdk.py", *arguments)) == words


def test_assemblyai_sdk_for_node_over_tls(words, tmp_path):
    node = shutil.which("node")
    installed = (EXAMPLES / "node_modules" / "assemblyai").is_dir()
    assert node, "Node is missing: `make test` installs it"
    assert installed, "Node's packages are missing: `make test` installs them"
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    soundfile.write(tmp_path / "speech.wav", samples, rate, subtype="PCM_16")
    with tls_server(certificate, tmp_path / "ca.pem") as port:
        output = run(
            node, "assemblyai_sdk.mjs", tmp_path / "speech.wav", f"wss://localhost:{port}",
            NODE_EXTRA_CA_CERTS=str(tmp_path / "ca.pem"),
        )  # fmt: skip
        untrusting = subprocess.run(
            [node, "assemblyai_sdk.mjs", tmp_path / "speech.wav", f"wss://localhost:{port}"],
            capture_output=True, text=True, timeout=60, cwd=EXAMPLES,
        )  # fmt: skip
    assert plain(output) == words
    assert untrusting.returncode == 1
    assert "NODE_EXTRA_CA_CERTS" in untrusting.stderr


@contextmanager
def tls_server(certificate, authority):
    port = free_port()
    program = Program(
        ["serve", "--host", "127.0.0.1", "--port", port, "--engine-kind", "scripted",
         "--engines", "english", "--tls-certificate", certificate]
    ).start()  # fmt: skip
    context = ssl.create_default_context(cafile=authority)
    try:
        deadline = monotonic() + 60
        while not ready(port, context):
            assert program.process.poll() is None, program.stderr
            assert monotonic() < deadline, program.stderr
            sleep(0.05)
        yield port
    finally:
        program.process.kill()
        program.wait()


def ready(port, context):
    try:
        with urlopen(f"https://localhost:{port}/ready", timeout=2, context=context):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def frameworks():
    default = ROOT / ".venv" / "frameworks" / "bin" / "python"
    python = Path(os.environ.get("FRAMEWORKS_PYTHON", default))
    assert python.exists(), f"{python} is missing: `make test` makes it"
    return python


def test_livekit_agents(endpoint, words, frameworks):
    arguments = ("--audio-file", SPEECH, "--endpoint", endpoint)
    assert plain(run(frameworks, "livekit_agents.py", *arguments)) == words


def test_pipecat(endpoint, words, frameworks):
    """The last words may be those of the silence after the recording."""
    arguments = ("--audio-file", SPEECH, "--endpoint", endpoint)
    printed = plain(run(frameworks, "pipecat_pipeline.py", *arguments))
    assert printed[:10] == words[:10]
    assert len(printed) >= 12
