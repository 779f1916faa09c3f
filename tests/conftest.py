"""Fixtures shared by all tests: virtual-time engines and gateways, and recorded speech."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio
from attrs import frozen
from hypothesis import HealthCheck, settings

from ssasr.cli.processes.all_in_one import LocalEngines
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import InlineModel
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.gateway.auth.access import Access, parse_keys
from ssasr.gateway.auth.tokens import TokenMint
from ssasr.gateway.gateway import Gateway, GatewayLimits
from ssasr.gateway.http import gateway_routes, http_app
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.routes import openai_routes
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.models import MODEL_VERSIONS, Offer
from ssasr.telemetry.metrics import Metrics

# Hypothesis takes a slow machine for a slow test; its first texts alone need seconds, once.
settings.register_profile("ssasr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ssasr")

JFK = Path(__file__).parent.parent / "ssasr" / "data" / "en_jfk.flac"


@pytest.fixture(scope="session")
def jfk() -> np.ndarray:
    """11 s of speech, int16 at 16 kHz."""
    samples, rate = soundfile.read(JFK, dtype="int16")
    assert rate == 16_000
    return samples


@pytest.fixture
async def engines(nursery: trio.Nursery) -> AsyncIterator[LocalEngines]:
    """Both engine kinds, scripted, in the test's own thread."""
    metrics = Metrics()
    hosts = {}
    for kind, version in MODEL_VERSIONS.items():
        host = EngineHost(
            ScriptedRecognizer(), InlineModel(), metrics, name=kind.value, max_streams=3
        )
        await nursery.start(host.run)
        hosts[version] = host
    yield LocalEngines(hosts)
    nursery.cancel_scope.cancel()


@frozen
class Served:
    """A gateway that listens on loopback."""

    gateway: Gateway
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v3/ws"


@pytest.fixture
async def served(engines: LocalEngines, nursery: trio.Nursery) -> AsyncIterator[Served]:
    metrics = Metrics()
    offer = Offer((EngineKind.ENGLISH, EngineKind.MULTILINGUAL))
    limits = GatewayLimits(max_sessions=5, max_duration=60.0, drain_seconds=1.0)
    access = Access(parse_keys("self-hosted"), TokenMint(b"a secret for the tests"))
    gateway = Gateway(engines, offer, access, metrics, limits)
    files = openai_routes(gateway, access, ModelNames(offer.kinds), 8 << 20)
    app = http_app(gateway_routes(gateway.is_ready, metrics, access), files)
    yield Served(gateway, await nursery.start(gateway.run, app, "127.0.0.1", 0))
    nursery.cancel_scope.cancel()
