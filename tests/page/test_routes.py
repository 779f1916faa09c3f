"""The page's files over HTTP, and the temporary token that it asks for."""

import gzip
import re
from importlib.resources import files

import pytest

from ssasr.gateway.auth.access import Access, parse_keys
from ssasr.gateway.auth.tokens import TokenMint
from ssasr.gateway.demo_page import FILES, content_security_policy, page_routes
from ssasr.gateway.http import gateway_routes, http_app
from ssasr.protocol.speech_models import EngineKind
from ssasr.telemetry.metrics import Metrics
from tests.harness.asgi import ask

NOW = 1_800_000_000.0
WEB = files("ssasr") / "web"


@pytest.fixture
def access():
    return Access(parse_keys("secret-key"), TokenMint(b"a secret for the tests"))


@pytest.fixture
def app(access):
    routes = gateway_routes(lambda: True, Metrics(), access, lambda: NOW)
    return http_app(page_routes([EngineKind.ENGLISH]) | routes)


async def get(app, path, query="", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(app, path, query, headers={"host": "speech.example:8080", **named})


@pytest.mark.parametrize("path", FILES)
async def test_every_file_is_served_with_its_type_and_not_asked_for_twice(app, path):
    name, media_type = FILES[path]
    response = await get(app, path)
    headers = response.headers
    assert (response.status, headers["content-type"]) == (200, media_type)
    assert response.body == (WEB / name).read_bytes()
    assert headers["x-content-type-options"] == "nosniff"
    again = await get(app, path, if_none_match=f'"other", {headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    small = await get(app, path, accept_encoding="br, gzip;q=0.5")
    assert small.headers["content-encoding"] == "gzip"
    assert gzip.decompress(small.body) == response.body
    plain = await get(app, path, accept_encoding="gzip;q=0, br")
    assert "content-encoding" not in plain.headers


def test_every_file_of_the_package_is_served():
    assert {entry.name for entry in WEB.iterdir()} == {name for name, _ in FILES.values()}


def test_files_ask_for_nothing_but_each_other():
    """Relative addresses only, and each of them is served."""
    for name, media_type in FILES.values():
        text = (WEB / name).read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://[a-z]", text), name
        base = "/" if name == "index.html" else "/demo/"
        if "svg" not in media_type:
            found = re.findall(r'(?:src=|href=|from |import |URL\()"([^"#]+)"', text)
            missing = [each for each in found if base + each.removeprefix("./") not in FILES]
            assert not missing, name


def test_policy_names_this_host_alone():
    policy = content_security_policy("speech.example:8080")
    assert "connect-src 'self' ws://speech.example:8080 wss://speech.example:8080;" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["", "a.example; script-src *", "a b", "x\r\nset-cookie: a"])
def test_policy_leaves_out_what_is_not_a_host(host):
    assert "connect-src 'self';" in content_security_policy(host)


async def test_page_has_the_policy(app):
    headers = (await get(app, "/")).headers
    assert "ws://speech.example:8080" in headers["content-security-policy"]
    assert "microphone=(self)" in headers["permissions-policy"]


async def test_models_are_those_that_an_engine_serves(app):
    server = (await get(app, "/demo/server.json")).json()
    assert server["speech_models"] == ["universal-streaming-english"]


@pytest.mark.parametrize("path", ["/demo/", "/demo/../cli.py", "/demo/py.typed", "/index.html"])
async def test_other_paths_are_not_found(app, path):
    assert (await get(app, path)).status == 404


# -- tokens ----------------------------------------------------------------------------------------


async def token(app, query, **headers):
    response = await get(app, "/v3/token", query, **headers)
    return response.status, response.json(), response.headers


async def test_token_for_a_key_opens_one_session(app, access):
    query = "expires_in_seconds=60&max_session_duration_seconds=120"
    status, body, headers = await token(app, query, authorization="secret-key")
    assert (status, body["expires_in_seconds"]) == (200, 60)
    assert headers["cache-control"] == "no-store"
    with access.open_session(None, body["token"], NOW + 59) as grant:
        assert grant.max_duration == 120


@pytest.mark.parametrize("query", ["", "expires_in_seconds=0", "expires_in_seconds=601"])
async def test_token_parameters_are_checked(app, query):
    status, body, _ = await token(app, query, authorization="secret-key")
    assert status == 400
    assert "expires_in_seconds" in body["error"]


@pytest.mark.parametrize("headers", [{}, {"authorization": "self-hosted"}])
async def test_no_token_without_a_key(app, headers):
    status, body, _ = await token(app, "expires_in_seconds=60", **headers)
    assert status == 401
    assert body["error"].startswith("Unauthorized Connection")
