"""The public side that ``serve`` and ``gateway`` have in common, built from its configuration."""

import secrets
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio
from attrs import evolve, field, frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from ssasr import __version__
from ssasr.cli.processes.metrics_port import serve_metrics
from ssasr.errors import StartRefused
from ssasr.gateway.auth.access import Access, parse_keys, read_key_file
from ssasr.gateway.auth.licence import Licence
from ssasr.gateway.auth.tokens import TokenMint
from ssasr.gateway.demo_page import page_routes
from ssasr.gateway.gateway import Gateway, GatewayLimits
from ssasr.gateway.http import Handler, gateway_routes, http_app, upgrade_required
from ssasr.gateway.llm import LlmGateway
from ssasr.gateway.openai import realtime
from ssasr.gateway.openai.client_secrets import ClientSecrets
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.routes import openai_routes
from ssasr.gateway.outbox.journal import Journal
from ssasr.gateway.outbox.outbox import Backoff, Outbox
from ssasr.gateway.redaction.service import MEASURED_MODEL, detected_policies, redaction
from ssasr.gateway.session_log import SessionLog
from ssasr.gateway.usage.push import Destination as PushDestination
from ssasr.gateway.usage.push import UsageQueue
from ssasr.gateway.usage.records import keep_record, open_usage
from ssasr.gateway.webhooks import WebhookHosts, Webhooks, open_webhooks
from ssasr.gateway.workers.metrics import exposition_of_sum, to_plain
from ssasr.gateway.workers.shared import ReportMissing, SharedQuota, Siblings
from ssasr.gateway.workers.supervisor import Worker
from ssasr.net.http_server import AsgiApp
from ssasr.net.listener import is_loopback
from ssasr.protocol.speech_models import Aliases, EngineKind
from ssasr.routing.engine_stream import Engines
from ssasr.routing.models import Offer
from ssasr.runtime.changed_files import watch_files
from ssasr.runtime.garbage import YOUNG, collect_when_due
from ssasr.runtime.loop_lag import measure_loop_lag
from ssasr.runtime.process import Service, load_certificate, tls_context, watch_signals
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import Destination, tracing

log = get_logger(__name__)

EVERY_ADDRESS = ("*", "0.0.0.0", "::")
"""Hosts to listen on that are no address to go to."""


@frozen
class PublicConfig:
    host: str
    port: int
    engines: tuple[EngineKind, ...]
    """The kinds that sessions may ask for."""
    limits: GatewayLimits
    keys: str = field(repr=False)
    """As ``access.parse_keys`` reads them."""
    keys_file: Path | None = None
    """Where they are from, to be read again at SIGHUP and when it has changed."""
    token_secret: bytes | None = field(default=None, repr=False)
    """None: one of this process's own, whose tokens no other gateway accepts."""
    speech_models: Aliases = MappingProxyType({})
    """Names of the operator's own."""
    max_upload: int = 1 << 30
    """Bytes of a file."""
    demo_page: bool = True
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    usage_dir: Path | None = None
    """None: no usage records."""
    usage_destination: PushDestination | None = None
    """None: they stay where they are."""
    webhook_hosts: WebhookHosts | None = None
    """None: sessions that ask for a webhook are refused."""
    webhook_dir: Path | None = None
    """Where deliveries wait."""
    llm: LlmGateway | None = None
    """None: sessions that ask for an LLM's answers are refused."""
    licence: Licence | None = None
    worker: Worker | None = None
    """Which of several processes behind one port this is."""
    redaction_model: str | None = None
    """A model of names, of the catalogue or a folder; None: sessions that ask for redaction are
    refused."""
    traces: Destination | None = None
    """None: nowhere."""
    metrics_port: int | None = None
    """None: metrics are on ``port``."""
    log_peers: bool = True
    """Log lines of sessions hold the clients' addresses."""


def model_of_names(name: str | None) -> Path | None:
    """The folder of redaction's model. Raises WeightsError."""
    if name is None:
        return None
    from ssasr.models import catalogue  # only for those who redact

    path = Path(name).expanduser()
    return path if path.is_dir() else catalogue.resolve(name, pull=False).directory


def own_directories(directory: Path, worker: Worker | None) -> list[Path]:
    """Where this process keeps what it is to send, and what else it sends from. Workers keep theirs
    apart, each in a directory; the first uses that of a gateway without workers, and sends what
    was left by more workers than there are now."""
    number, count = (0, 1) if worker is None else (worker.number, worker.count)
    if number:
        return [directory / f"worker-{number}"]
    others = [(each, each.name.removeprefix("worker-")) for each in directory.glob("worker-*")]
    left = sorted(each for each, text in others if text.isdecimal() and int(text) >= count)
    return [directory, *left]


def usage_services(
    config: PublicConfig, metrics: Metrics
) -> tuple[Journal | None, tuple[Service, ...]]:
    """Where records are kept, if anywhere, and what writes and sends them. Raises StartRefused."""
    if config.usage_dir is None:
        return None, ()
    own, *left = own_directories(config.usage_dir, config.worker)
    usage = open_usage(own)
    usage.on_lost = metrics.usage_lost.inc
    metrics.usage_pending.set_function(lambda: usage.pending)
    metrics.usage_pending_seconds.set_function(lambda: usage.pending_seconds)
    if config.usage_destination is None:
        return usage, (usage.run,)
    queues = [
        UsageQueue(each, config.usage_destination) for each in (usage, *map(open_usage, left))
    ]
    return usage, (usage.run, *(Outbox(queue, Backoff()).run for queue in queues))


def webhook_services(
    config: PublicConfig, metrics: Metrics
) -> tuple[Webhooks | None, tuple[Service, ...]]:
    """Raises StartRefused."""
    if config.webhook_hosts is None or config.webhook_dir is None:
        return None, ()
    journals = map(open_webhooks, own_directories(config.webhook_dir, config.worker))

    def count(result: str) -> None:
        metrics.webhooks.labels(result).inc()

    own, *left = [Webhooks(config.webhook_hosts, journal, count) for journal in journals]
    own.journal.on_lost = metrics.webhooks.labels("lost").inc
    sending = [each.outbox().run for each in (own, *left)]
    return own, (own.journal.run, *sending)


def status_of(gateway: Gateway) -> dict[str, object]:
    licence, redacting = gateway.licence, gateway.features.redaction
    draining = gateway.draining.is_set()
    return {
        "version": __version__,
        "ready": gateway.is_ready(),
        "draining": draining,
        "sessions": gateway.session_count().running,
        "sessions_limit": 0 if draining else gateway.session_limit(),
        "licence": {"state": "none"} if licence is None else licence.state(gateway.wall_clock()),
        "redaction": {} if redacting is None else redacting.detected(),
    }


def status_route(gateway: Gateway, siblings: Siblings | None = None) -> Handler:
    """``GET /v1/status``: for people and scripts; nothing of it is secret or of a client."""

    async def status(_: Request) -> Response:
        whole = status_of(gateway)
        if siblings is not None:
            try:
                every: list[Any] = [report["status"] for report in await siblings.reports()]
            except ReportMissing as missing:
                return JSONResponse({"error": str(missing)}, 503)
            whole |= {"sessions": sum(each["sessions"] for each in every), "workers": len(every)}
        return JSONResponse(whole)

    return status


def make_siblings(config: PublicConfig, gateway: Gateway) -> Siblings | None:
    worker = config.worker
    if worker is None:
        return None

    def report() -> dict[str, object]:
        return {"status": status_of(gateway), "metrics": to_plain(gateway.metrics.registry)}

    return Siblings(worker.directory, worker.number, worker.count, report)


def openai_endpoints(config: PublicConfig, gateway: Gateway) -> list[BaseRoute]:
    """The addresses of OpenAI's clients; the one that speaks WebSocket is the gateway's."""
    names = ModelNames(config.engines, config.speech_models)
    gateway.handlers[realtime.PATH] = realtime.RealtimeHandler(gateway, names).serve
    files = openai_routes(gateway, gateway.access, names, config.max_upload)
    return [*files, ClientSecrets(gateway.access, names).route]


async def sum_of_metrics(siblings: Siblings) -> bytes:
    """Raises ReportMissing."""
    reports: list[Any] = [report["metrics"] for report in await siblings.reports()]
    return exposition_of_sum(reports)


def make_access(config: PublicConfig) -> Access:
    """Raises StartRefused."""
    mint = TokenMint(config.token_secret or secrets.token_bytes(32))
    keys = parse_keys(config.keys)
    if config.worker is None:
        return Access(keys, mint)
    shared = SharedQuota(config.worker.directory, config.worker.number)
    return Access(keys, mint, shared, shared)


def reload_files(config: PublicConfig, access: Access, tls: ssl.SSLContext | None) -> None:
    """Read the key file and the certificate again, for new connections; one that cannot be used is
    reported, and what was there before stays."""
    try:
        if config.keys_file is not None:
            access.replace_keys(parse_keys(read_key_file(config.keys_file)))
    except StartRefused as refused:
        log.error("the keys stay as they were", reason=str(refused))
    try:
        if tls is not None and config.tls_certificate is not None:
            load_certificate(tls, config.tls_certificate, config.tls_key)
    except StartRefused as refused:
        log.error("the certificate stays as it was", reason=str(refused))


def files_to_watch(config: PublicConfig) -> list[Path]:
    """What ``reload_files`` reads."""
    named = (config.keys_file, config.tls_certificate, config.tls_key)
    return [path for path in named if path is not None]


async def watch_parent(parent: int, stop: Callable[[], None]) -> None:
    """A worker whose supervisor is gone ends as if it had been asked to."""
    await trio.lowlevel.wait_readable(parent)
    log.error("the supervisor is gone")
    stop()
    await trio.sleep_forever()


def log_stopped(sessions: int, records_lost: int) -> None:
    """The last line of a process."""
    if records_lost:
        log.error("stopped", sessions=sessions, usage_records_lost=records_lost)
    else:
        log.info("stopped", sessions=sessions)


async def serve_public(
    config: PublicConfig,
    engines: Engines,
    metrics: Metrics,
    services: tuple[Service, ...],
    young: int = YOUNG,
) -> None:
    """Serve until SIGTERM or SIGINT has drained it. ``services`` keep the engines, or the way to
    them, alive meanwhile; what one of them raises ends everything. ``young``: as
    ``collect_when_due``'s. Raises StartRefused."""
    tls = tls_context(config.tls_certificate, config.tls_key)
    access = make_access(config)
    usage, keeping = usage_services(config, metrics)
    webhooks, sending = webhook_services(config, metrics)
    gateway = Gateway(
        engines, Offer(config.engines), access, metrics, config.limits, licence=config.licence,
        speech_models=config.speech_models, session_log=SessionLog(config.log_peers),
    )  # fmt: skip
    features = gateway.features
    features.webhooks = webhooks
    if config.llm is not None:
        features.llm = evolve(config.llm, on_answer=lambda of: metrics.llm_answers.labels(of).inc())
    if usage is not None:
        gateway.on_end = partial(keep_record, usage)
    redacts = {} if config.redaction_model is None else detected_policies(measured=False)
    pages = page_routes(config.engines, redacts) if config.demo_page else {}
    siblings = make_siblings(config, gateway)
    together = None if siblings is None else partial(sum_of_metrics, siblings)
    routes = gateway_routes(gateway.is_ready, metrics, access, together=together)
    shown = routes["/metrics"] if config.metrics_port is None else routes.pop("/metrics")
    pages |= routes | {"/v1/status": status_route(gateway, siblings)}
    app = http_app(pages | {realtime.PATH: upgrade_required}, openai_endpoints(config, gateway))
    reporting = () if siblings is None else (siblings.run,)
    async with (
        tracing(config.traces, "ssasr-gateway") as gateway.tracer,
        redaction(
            model_of_names(config.redaction_model),
            measured=config.redaction_model == MEASURED_MODEL,
        ) as features.redaction,
    ):
        collecting = partial(collect_when_due, gateway.session_count, young)
        measuring = partial(measure_loop_lag, metrics.loop_lag)
        own = (*keeping, *sending, *reporting, gateway.session_log.bursts.run)
        await _serve(config, gateway, app, tls, (*own, *services, collecting, measuring), shown)
    log_stopped(gateway.session_count().ended, 0 if usage is None else usage.lost)


def address_of(config: PublicConfig, port: int) -> str:
    """What a browser on this machine opens."""
    scheme = "http" if config.tls_certificate is None else "https"
    host = "localhost" if config.host in EVERY_ADDRESS else config.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


async def _serve(
    config: PublicConfig,
    gateway: Gateway,
    app: AsgiApp,
    tls: ssl.SSLContext | None,
    services: tuple[Service, ...],
    metrics: Handler,
) -> None:
    """``metrics``: what shows them on a port of their own."""
    worker = config.worker
    reload = partial(reload_files, config, gateway.access, tls)
    if worker is not None:
        reload()  # one that is started later than the others knows what they know
    async with trio.open_nursery() as process:
        await process.start(watch_signals, gateway.draining.set, reload)
        if paths := files_to_watch(config):
            process.start_soon(watch_files, paths, reload)
        if config.metrics_port is not None:
            show = partial(serve_metrics, share_port=worker is not None)
            await process.start(show, metrics, config.host, config.metrics_port)
        async with trio.open_nursery() as serving:
            serve = partial(gateway.run, app, config.host, config.port, tls)
            port = await serving.start(partial(serve, share_port=worker is not None))
            log.info("listening", host=config.host, port=port, open=address_of(config, port))
            if gateway.access.is_open() and not is_loopback(config.host):
                log.warning("other machines can open sessions with a key that everybody knows")
            if worker is not None:
                process.start_soon(watch_parent, worker.parent, gateway.draining.set)
                worker.started()
            for service in services:
                process.start_soon(service)
        if gateway.features.webhooks is not None:
            await gateway.features.webhooks.last_posts()
        process.cancel_scope.cancel()
