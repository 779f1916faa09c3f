"""``ssasr serve``, ``gateway`` and ``engine``: the options and what to do with them."""

import argparse
import os
from functools import partial
from typing import Any

from ssasr.cli import options
from ssasr.cli.conflicts import blamed_on
from ssasr.cli.exit_status import exit_status
from ssasr.cli.files import (
    api_keys,
    check_certificate,
    engine_secret,
    licence,
    llm_gateway,
    token_secret,
    usage_destination,
    webhook_hosts,
)
from ssasr.cli.options import Option, Values, path, switch, url
from ssasr.errors import UsageError
from ssasr.gateway.auth.access import DEFAULT_KEYS
from ssasr.protocol.speech_models import EngineKind

HOST = Option(
    "--host", "address to listen on; * is every one, IPv4 and IPv6", "0.0.0.0", metavar="H"
)
ENGINE_HOST = Option(
    "--host",
    "address to listen on, this machine alone unless set otherwise; * is every one",
    "127.0.0.1",
    metavar="H",
)
PORT = Option("--port", "port to listen on; 0 takes a free one", 8_080, options.port, "P")
ENGINE_PORT = Option("--port", "port to listen on; 0 takes a free one", 50_051, options.port, "P")
METRICS_PORT = Option(
    "--metrics-port", "port for /metrics alone, without TLS; default: they are on --port", None,
    options.port, "P",
)  # fmt: skip
ENGINE_SECRET = path(
    "--engine-secret-file",
    "file with a secret of 16 letters or more that engines ask gateways for; default: none",
)
LOGGING = (
    Option("--log-format", "console or json", "console", choices=("console", "json")),
    Option(
        "--log-level", "least level that is logged", "info",
        choices=("debug", "info", "warning", "error"),
    ),
    url(
        "--otlp-endpoint",
        "where traces go, http://HOST:4318 (needs ssasr[otel]); default: nowhere",
    ),
)  # fmt: skip
DRAIN = Option(
    "--drain-seconds", "seconds that sessions have after SIGTERM", 30.0, options.seconds, "S"
)
PUBLIC = (
    Option(
        "--max-sessions",
        "client sessions at once; default: 350 for each core that its processes can use",
        None,
        options.count,
        "N",
    ),
    Option("--max-duration", "seconds a session may last", 10_800.0, options.seconds, "S"),
    DRAIN,
    Option(
        "--max-connections-per-address",
        "connections of one IP address at once; not behind a proxy, where all have its address; "
        "default: no limit",
        None,
        options.count,
        "N",
    ),
    Option(
        "--api-keys",
        "comma-separated keys that open sessions, each with the most it may have open if you like "
        "(key 20); * is any, and its limit holds for all that only it lets in",
        DEFAULT_KEYS,
        metavar="KEYS",
    ),
    path(
        "--api-keys-file",
        "file with one key a line, instead of --api-keys; read again when it changes",
    ),
    path(
        "--token-secret-file",
        "file with 16 bytes or more that sign temporary tokens; gateways that share it accept each "
        "other's; default: a random one",
    ),
    Option(
        "--speech-model-aliases",
        "comma-separated NAME=MODEL: further values of speech_model and what each stands for; "
        "default: none",
        {},
        options.aliases,
        "LIST",
    ),
    Option(
        "--max-upload",
        "MiB of a file that POST /v1/audio/transcriptions takes",
        1_024,
        options.count,
        "MIB",
    ),
    switch("--demo-page", "serve the demo page at /", True),
    METRICS_PORT,
    path(
        "--tls-certificate", "PEM file; the port then speaks TLS only; read again when it changes"
    ),
    path("--tls-key", "PEM file, unless the certificate file holds the key"),
    path("--usage-dir", "directory for usage records; default: none are kept", "DIR"),
    url("--usage-push-url", "where usage records are sent as well; default: nowhere"),
    path("--usage-push-token-file", "file with the bearer token for that"),
    Option(
        "--webhook-hosts",
        "comma-separated names, addresses and networks that sessions may have their transcripts "
        "posted to (webhook_url); default: none",
        None,
        webhook_hosts,
        "LIST",
    ),
    path("--webhook-dir", "directory where webhooks wait until they are taken", "DIR"),
    url(
        "--llm-gateway-url",
        "OpenAI-compatible API, http://HOST/v1, that answers turns of sessions which ask for it "
        "(llm_gateway); default: none",
    ),
    path("--llm-gateway-key-file", "file with its key"),
    switch("--redaction", "let sessions ask for redact_pii (needs ssasr[redaction])", False),
    Option(
        "--redaction-model",
        "model that finds names: of the catalogue, of a hub (owner/name@commit, pulled before), or "
        "a directory; of spaCy, GLiNER or a token classifier",
        "en-core-web-sm",
        metavar="MODEL",
    ),
    switch("--log-peers", "log the clients' IP addresses with their sessions", True),
    path("--licence-file", "licence, where the vendor's key asks for one"),
    path("--licence-key-file", "the vendor's public key (PEM); then a licence is needed"),
    *LOGGING,
)
RECOGNITION = (
    Option("--device", "auto, cpu or cuda:N", "auto", options.device, "D"),
    Option("--precision", "auto: 8 bits on a CPU that is fast with them, half precision on a GPU; "
           "int8: refuse to start without; float32: nothing is rounded", "auto",
           choices=("auto", "int8", "float32")),
    Option("--threads",
           "CPU threads of one model; default: the cores, four at most if it is small",
           None, options.count, "N"),
    Option("--max-streams", "streams per engine; default: what it should keep up with", None,
           options.count, "N"),
    Option("--chunk-ms", "step of a FastConformer model: 80, 160 (English), 320 (multilingual), "
           "560 or 1120, longer is cheaper and more accurate; default: 160 or 320; others have "
           "their own", None, options.count, "MS"),
    switch("--speakers", "tell speakers apart, for sessions that ask for it", True),
    Option("--engine-kind", "model, or scripted: deterministic words without weights", "model",
           choices=("model", "scripted")),
)  # fmt: skip
SERVE = (
    HOST,
    PORT,
    Option("--engines", "engines to run", ("english", "multilingual"), options.engines, "LIST"),
    *RECOGNITION,
    *PUBLIC,
)
GATEWAY = (
    HOST,
    PORT,
    Option("--asr-endpoint", "where the engines are, usually their load balancer",
           metavar="ws://HOST:PORT"),
    path("--asr-ca", "PEM file of who signs the engines' certificates (wss); default: whom this "
         "machine trusts"),
    ENGINE_SECRET,
    Option("--engines", "models that must be there for this gateway to be ready; default: "
           "whichever are found", None, options.engines, "LIST"),
    Option("--workers", "processes behind one port; the limits hold for all together", 1,
           options.count, "N"),
    *PUBLIC,
)  # fmt: skip
ENGINE = (
    Option("--model", "english, multilingual, or the name or path of a model", None, options.model,
           "NAME"),
    ENGINE_HOST,
    ENGINE_PORT,
    METRICS_PORT,
    *RECOGNITION,
    Option("--model-version", "X-Model-Version that this engine serves; default: en-default, "
           "ml-default, or any for a model by name", metavar="V"),
    ENGINE_SECRET,
    DRAIN,
    *LOGGING,
)  # fmt: skip


def public_config(values: Values, engines: Any) -> Any:
    from ssasr.cli.processes.public_side import PublicConfig
    from ssasr.gateway.gateway import GatewayLimits, sessions_that_fit

    limits = GatewayLimits(
        values["max_sessions"] or sessions_that_fit(values.get("workers", 1)),
        values["max_duration"],
        values["drain_seconds"],
        values["max_connections_per_address"],
    )
    check_certificate(values)
    return PublicConfig(
        host=values["host"],
        port=values["port"],
        engines=engines,
        limits=limits,
        keys=api_keys(values),
        keys_file=values["api_keys_file"],
        token_secret=token_secret(values),
        speech_models=values["speech_model_aliases"],
        max_upload=values["max_upload"] << 20,
        demo_page=values["demo_page"],
        tls_certificate=values["tls_certificate"],
        tls_key=values["tls_key"],
        usage_dir=values["usage_dir"],
        usage_destination=usage_destination(values),
        webhook_hosts=values["webhook_hosts"],
        llm=llm_gateway(values),
        webhook_dir=values["webhook_dir"],
        licence=licence(values),
        redaction_model=values["redaction_model"] if values["redaction"] else None,
        traces=traces(values),
        log_peers=values["log_peers"],
        metrics_port=values["metrics_port"],
    )


def traces(values: Values) -> Any:
    """Raises UsageError."""
    from ssasr.telemetry.tracing import destination

    with blamed_on(values, "otlp_endpoint"):
        return destination(values["otlp_endpoint"], os.environ)


def recognition_config(values: Values) -> Any:
    from ssasr.cli.processes.recognition import RecognitionConfig

    return RecognitionConfig(
        engine_kind=values["engine_kind"],
        device=values["device"],
        threads=values["threads"],
        max_streams=values["max_streams"],
        chunk_ms=values["chunk_ms"],
        speakers=values["speakers"],
        precision=values["precision"],
    )


def run_serve(values: Values, _: argparse.Namespace) -> int:
    from ssasr.cli.processes.all_in_one import serve
    from ssasr.runtime.process import run

    public = public_config(values, tuple(map(EngineKind, values["engines"])))
    run(partial(serve, public, recognition_config(values)))
    return 0


def run_gateway(values: Values, _: argparse.Namespace) -> int:
    from ssasr.cli.processes.gateway import GatewayConfig, serve_gateway, serve_workers
    from ssasr.routing.engine_client import Address
    from ssasr.runtime.process import run

    if values["asr_endpoint"] is None:
        raise UsageError("--asr-endpoint is needed: where are the engines (ws://HOST:PORT)?")
    engines = tuple(map(EngineKind, values["engines"] or EngineKind))
    with blamed_on(values, "asr_endpoint"):
        address = Address.parse(values["asr_endpoint"])
    if values["asr_ca"] is not None:
        with blamed_on(values, "asr_ca"):
            address = Address.parse(values["asr_endpoint"], values["asr_ca"])
    config = GatewayConfig(
        public_config(values, engines),
        address,
        required=values["engines"] is not None,
        secret=engine_secret(values),
    )
    if values["workers"] > 1:
        return serve_workers(config, values["workers"], exit_status)
    run(partial(serve_gateway, config))
    return 0


def run_engine(values: Values, _: argparse.Namespace) -> int:
    from ssasr.cli.processes.engine import EngineConfig, serve_engine
    from ssasr.runtime.process import run

    if values["model"] is None:
        raise UsageError("--model is needed: english, multilingual, or the name of a model")
    config = EngineConfig(
        host=values["host"],
        port=values["port"],
        model=values["model"],
        version=values["model_version"],
        recognition=recognition_config(values),
        drain_seconds=values["drain_seconds"],
        traces=traces(values),
        secret=engine_secret(values),
        metrics_port=values["metrics_port"],
    )
    run(partial(serve_engine, config))
    return 0
