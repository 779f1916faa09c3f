"""What Compose would run, as local processes: the file's own commands and environment."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen

from tests.harness.isolated import Service
from tests.harness.nginx import find_nginx, render, with_servers

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


class _Loader(yaml.SafeLoader):
    """Knows the two tags by which one Compose file takes back what another one says."""


for _tag in ("!override", "!reset"):
    _Loader.add_constructor(
        _tag, lambda loader, node: loader.construct_mapping(node, deep=True)
    )  # fmt: skip


def interpolate(text: str, environment: dict[str, str]) -> str:
    return VARIABLE.sub(lambda match: environment.get(match[1], match[2]), text)


def parse(text: str, environment: dict[str, str]) -> dict[str, Any]:
    """A Compose file's content with its variables filled in, defaults where ``environment`` says
    nothing."""
    return yaml.load(interpolate(text, environment), _Loader)


def load(name: str = "compose.yaml", **environment: str) -> dict[str, Any]:
    return parse((DOCKER / name).read_text(), environment)


@frozen
class Image:
    """What matters of a Dockerfile's last stage."""

    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]

    @classmethod
    def read(cls, path: Path, arguments: dict[str, str]) -> "Image":
        text = re.sub(r"\\\n\s*", "", path.read_text())
        last = text[text.rindex("\nFROM ") :]
        pairs = [
            pair.partition("=")[::2]
            for line in re.findall(r"^ENV (.*)$", last, re.MULTILINE)
            for pair in line.split()
        ]
        filled = {
            key: re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], value) for key, value in pairs
        }
        return cls(
            _json(last, "ENTRYPOINT"), _json(last, "CMD"), filled, _json(last, "HEALTHCHECK.*CMD")
        )


def _json(text: str, instruction: str) -> list[str]:
    found = re.search(rf"^{instruction} (\[.*\])$", text, re.MULTILINE)
    assert found is not None, f"no {instruction} in exec form"
    return json.loads(found[1])


def python_service(name: str, service: dict[str, Any], extra: dict[str, str]) -> Service:
    """A gateway or an engine. Only where the installation lies differs from the container."""
    arguments = service["build"].get("args", {})
    image = Image.read(DOCKER.parent / service["build"]["dockerfile"], arguments)
    assert image.entrypoint == ["ssasr"]
    own = {k: v for k, v in image.environment.items() if k.startswith("SSASR_")}
    own.pop("SSASR_CACHE", None)  # where the image has its weights; here they are in the cache
    environment = own | {k: str(v) for k, v in service["environment"].items()} | extra
    return Service(
        name,
        [sys.executable, "-m", "ssasr", *service["command"]],
        environment,
        ready=f"http://127.0.0.1:{environment['SSASR_PORT']}/ready",
    )


def nginx_service(name: str, service: dict[str, Any], run_dir: Path, resolver: str) -> Service:
    """What the nginx image's entry point does, with ``run_dir`` for the container's /tmp."""
    environment = {k: v.replace("/tmp", str(run_dir)) for k, v in service["environment"].items()}
    assert environment["NGINX_ENTRYPOINT_LOCAL_RESOLVERS"], "the image then sets the name servers"
    known = environment | {"NGINX_LOCAL_RESOLVERS": resolver}
    wanted = re.compile(environment["NGINX_ENVSUBST_FILTER"])
    template, script = (mount.split(":")[:2] for mount in service["volumes"])
    source, target = template
    assert re.fullmatch(r"/docker-entrypoint\.d/[01]\d-\w+\.envsh", script[1]), "before envsubst"
    assert os.access(DOCKER / script[0], os.X_OK), "the entry point reads nothing else"
    assert str(Path(target).parent) == environment["NGINX_ENVSUBST_TEMPLATE_DIR"]
    assert target.endswith(".template"), "the entry point looks for nothing else"
    text = render(
        (DOCKER / source).read_text(),
        with_servers({k: v for k, v in known.items() if wanted.match(k)}, DOCKER / script[0]),
    )  # fmt: skip
    Path(environment["NGINX_ENVSUBST_OUTPUT_DIR"], Path(target).stem).write_text(text)
    binary, *arguments = (part.replace("/tmp", str(run_dir)) for part in service["command"])
    assert binary == "nginx", "the entry point renders for no other command"
    port = environment["LB_LISTEN"]
    return Service(
        name, [find_nginx(), "-p", str(run_dir), *arguments], {}, f"http://127.0.0.1:{port}/nginx_health"
    )  # fmt: skip
