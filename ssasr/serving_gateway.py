"""The gateway process. Imports nothing of the engine: it must start without torch."""

from attrs import frozen

from ssasr.front import FrontConfig, serve_front
from ssasr.observability import Metrics
from ssasr.routing.engine_client import Address, EngineClient
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.models import MODEL_VERSIONS


@frozen
class GatewayConfig:
    """``required``: all engines of ``front`` must be there for the gateway to be ready."""

    front: FrontConfig
    address: Address
    required: bool


async def serve_gateway(config: GatewayConfig) -> None:
    """Until SIGTERM or SIGINT. Raises StartRefused."""
    versions = [MODEL_VERSIONS[kind] for kind in config.front.engines]
    client = EngineClient(config.address, versions, config.required)
    metrics = Metrics()
    engines = ResilientEngines(client, metrics)
    await serve_front(config.front, engines, metrics, (client.run,))
