"""Dockerfiles and Compose files: valid, and consistent with each other and with the code."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ssasr import __version__
from ssasr.cli import commands as cli
from ssasr.gateway.gateway import FINAL_WORDS_DEADLINE, LAST_SCRAPE_DEADLINE
from tests.docker import compose
from tests.harness.nginx import TEMPLATE, with_servers

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
        "healthcheck", "user", "ulimits", "deploy", "scale", "env_file",
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


def test_images_and_the_chart_have_the_version_of_the_program():
    for service in compose.load()["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert tag == (__version__ if name.startswith("ssasr") else "1.29-alpine")
    chart = yaml.safe_load((compose.DOCKER / "helm" / "ssasr" / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


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


def shown_options(name: str) -> list[str]:
    """Of an example of an environment file; each a line that only wants its # taken away."""
    return re.findall(r"^# (SSASR_[A-Z_]+)=\S+$", (compose.DOCKER / name).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "service", "name"),
    [
        ("gateway", "streaming-api", "gateway.env"),
        ("engine", "streaming-asr-english", "engine.env"),
        ("engine", "streaming-asr-multilang", "engine.env"),
    ],
)
def test_every_option_can_be_set(command: str, service: str, name: str):
    described = compose.load()["services"][service]
    assert described["env_file"] == [{"path": name, "required": False}]
    given = {key for key in described["environment"] if key.startswith("SSASR_")}
    if command == "engine":
        given.add("SSASR_MODEL")  # its command says so
    options = {option.variable for option in cli.COMMANDS[command].options}
    shown = shown_options(f"{name}.example")
    assert sorted(shown) == sorted(options - given), "an environment file does not win"


def test_what_the_examples_show_is_understood():
    for command in ("gateway", "engine"):
        text = (compose.DOCKER / f"{command}.env.example").read_text()
        shown = dict(re.findall(r"^# (SSASR_[A-Z_]+)=(\S+)$", text, re.MULTILINE))
        for option in cli.COMMANDS[command].options:
            if option.variable in shown:
                option.value(shown[option.variable], option.variable)


def test_the_time_to_drain_and_the_time_to_stop_are_one_value():
    for name, service in compose.load()["services"].items():
        drain = service["environment"].get("SSASR_DRAIN_SECONDS")
        if drain is not None:
            grace = re.fullmatch(r"(\d+)s(\d+)ms", service["stop_grace_period"])
            assert grace is not None, "two units, which Compose adds up"
            assert grace[1] == str(drain)
            words = FINAL_WORDS_DEADLINE + LAST_SCRAPE_DEADLINE if name == "streaming-api" else 0
            assert int(grace[2]) / 1e3 >= words + 10


def test_the_balancer_gets_every_variable_of_its_template():
    wanted = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", TEMPLATE.read_text()))
    environment = compose.load()["services"]["streaming-asr-lb"]["environment"]
    given = with_servers({k: v for k, v in environment.items() if k.startswith("LB_")})
    assert wanted - {"NGINX_LOCAL_RESOLVERS"} == given.keys()


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


REQUIREMENTS = compose.DOCKER / "requirements"
EXTRAS = {"gateway": ["codecs", "licence", "otel"], "engine": ["engine", "otel"]}


def pinned(name: str) -> dict[str, str]:
    """Package to version; every one of them has digests, or pip would refuse the whole list."""
    text = re.sub(r"\\\n\s*", "", (REQUIREMENTS / f"{name}.txt").read_text())
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[\w-]+==\S+( --hash=sha256:[0-9a-f]{64})+", ln) for ln in lines)
    return dict(line.split()[0].split("==") for line in lines)


def needed(wanted: str, done: set[str]) -> set[str]:
    """Names of all packages that a requirement brings with it on this machine."""
    requirement = Requirement(wanted)
    if wanted in done:
        return set()
    done.add(wanted)
    found = {canonicalize_name(requirement.name)}
    for text in metadata.requires(requirement.name) or []:
        inner = Requirement(text)
        environments = [{"extra": extra} for extra in requirement.extras or {""}]
        if inner.marker is None or any(inner.marker.evaluate(each) for each in environments):
            extras = f"[{','.join(inner.extras)}]" if inner.extras else ""
            found |= needed(f"{inner.name}{extras}", done)
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_images_pin_everything_that_they_need(name: str):
    have = pinned(name) | (pinned("torch-cuda") if name == "engine" else {})
    project = tomllib.loads((compose.DOCKER.parent / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    wanted += [each for extra in EXTRAS[name] for each in project["optional-dependencies"][extra]]
    missing = {package for each in wanted for package in needed(each, set())} - have.keys()
    assert missing == set()


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda p: p.stem)
def test_images_and_the_suite_have_the_same_versions(path: Path):
    lines = (compose.DOCKER.parent / "constraints.txt").read_text().splitlines()
    suite = dict(line.split("==") for line in lines if line[0] != "#")
    suite = {canonicalize_name(name): version for name, version in suite.items()}
    have = pinned(path.stem)
    assert {n: v for n, v in have.items() if n in suite} == {
        n: v for n, v in suite.items() if n in have
    }
    dockerfile = (compose.DOCKER / "engine.Dockerfile").read_text()
    assert f"\nARG TORCH_VERSION={suite['torch']}\n" in dockerfile


@pytest.mark.parametrize("path", sorted(compose.DOCKER.glob("*.Dockerfile")), ids=lambda p: p.stem)
def test_images_install_nothing_unchecked(path: Path):
    text = re.sub(r"\\\n\s*", "", path.read_text())
    installs = re.findall(r"pip (?:--python \S+ )?install (.*?)(?=&&|;|$)", text, re.MULTILINE)
    unchecked = [
        each for each in installs if "--require-hashes" not in each and "--no-index" not in each
    ]
    # PyTorch from an index of the builder's own choice.
    allowed = 1 if path.stem == "engine" else 0
    assert len(installs) >= 3
    assert len(unchecked) == allowed, unchecked
    assert all("TORCH_INDEX_URL" in each for each in unchecked)


def test_images_run_as_nobody_in_particular():
    for path in compose.DOCKER.glob("*.Dockerfile"):
        assert re.search(r"^USER 10001$", path.read_text(), re.MULTILINE)
