"""Dockerfiles and Compose files: valid, and consistent with each other and with the code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compose_spec import PyCompose

from ssasr import cli
from tests.docker import compose
from tests.harness.nginx import TEMPLATE

FILES = ["compose.yaml", "compose.cpu.yaml", "compose.replicas.yaml"]
ENV_EXAMPLE = compose.DOCKER / ".env.example"
HADOLINT = Path(sys.executable).with_name("hadolint")


def validate(text: str) -> None:
    """Against the Compose specification. Raises ValueError."""
    content = compose.parse(text, {})
    PyCompose.from_json(json.dumps(content)).validate()


@pytest.mark.parametrize("name", FILES)
def test_compose_files_follow_the_specification(name: str):
    validate((compose.DOCKER / name).read_text())


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("init: true", "init: perhaps"),
        ("condition: service_healthy", "condition: service_happy"),
        ("interval: 5s", "interval: soon"),
        ("8080}:8080", "8080}:http"),
    ],
)
def test_a_wrong_compose_file_is_found_out(good: str, bad: str):
    text = (compose.DOCKER / "compose.yaml").read_text()
    assert good in text
    with pytest.raises(ValueError):  # noqa: PT011  the validator's texts are its own
        validate(text.replace(good, bad, 1))


def test_only_known_service_keys_are_used():
    """The validator takes unknown keys for extensions."""
    known = {
        "image", "build", "command", "environment", "ports", "networks", "depends_on", "restart",
        "init", "stop_grace_period", "read_only", "tmpfs", "volumes", "cap_drop", "security_opt",
        "healthcheck", "user", "ulimits", "deploy", "scale",
    }  # fmt: skip
    for name in FILES:
        for service in compose.load(name)["services"].values():
            assert service.keys() <= known


def test_services_and_ports_are_those_that_others_rely_on():
    services = compose.load()["services"]
    assert set(services) == {
        "streaming-api", "streaming-asr-lb", "streaming-asr-english", "streaming-asr-multilang",
    }  # fmt: skip
    assert services["streaming-api"]["ports"] == ["8080:8080"]
    assert services["streaming-asr-lb"]["ports"] == ["127.0.0.1:8081:80"]
    assert services["streaming-asr-english"]["environment"]["SSASR_PORT"] == "50051"
    assert services["streaming-asr-multilang"]["environment"]["SSASR_PORT"] == "50052"


@pytest.mark.parametrize("name", FILES[1:])
def test_overrides_name_services_that_exist(name: str):
    assert compose.load(name)["services"].keys() <= compose.load()["services"].keys()


def test_the_example_shows_every_setting_and_its_default():
    texts = [(compose.DOCKER / name).read_text() for name in FILES]
    used = {found[1]: found[2] for text in texts for found in compose.VARIABLE.finditer(text)}
    shown = dict(
        line.split("=", 1) for line in ENV_EXAMPLE.read_text().splitlines() if line[:1].isalpha()
    )
    assert shown == used
    assert all("${" not in compose.VARIABLE.sub("", text) for text in texts), "all have defaults"


def test_every_environment_variable_means_something():
    known = {
        option.variable for command in cli.COMMANDS.values() for option in command.options
    }  # fmt: skip
    for name in FILES:
        for service in compose.load(name)["services"].values():
            own = {key for key in service.get("environment", {}) if key.startswith("SSASR_")}
            assert own <= known
    for path in compose.DOCKER.glob("*.Dockerfile"):
        own = set(re.findall(r"\b(SSASR_[A-Z_]+)=", path.read_text()))
        assert own <= known | {"SSASR_CACHE"}


def test_the_balancer_gets_every_variable_of_its_template():
    wanted = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", TEMPLATE.read_text()))
    environment = compose.load()["services"]["streaming-asr-lb"]["environment"]
    assert wanted - {"NGINX_LOCAL_RESOLVERS"} == {k for k in environment if k.startswith("LB_")}


@pytest.mark.parametrize("path", sorted(compose.DOCKER.glob("*.Dockerfile")), ids=lambda p: p.stem)
def test_dockerfiles_are_clean(path: Path):
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", sorted(compose.DOCKER.glob("*.Dockerfile")), ids=lambda p: p.stem)
def test_what_dockerfiles_copy_is_let_in_and_exists(path: Path):
    allowed = {
        line[1:] for line in Path(f"{path}.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE):
        copied.update(line.split()[:-1])
    assert copied == allowed
    top = compose.DOCKER.parent
    # What make install and the packaging need as well is there or nothing works.
    needed = (top / "Makefile").read_text() + (top / "pyproject.toml").read_text()
    assert [name for name in copied if not (top / name).exists() and name not in needed] == []


def test_images_run_as_nobody_in_particular():
    for path in compose.DOCKER.glob("*.Dockerfile"):
        assert re.search(r"^USER 10001$", path.read_text(), re.MULTILINE)
