"""The Helm chart, rendered by Helm and validated against the Kubernetes API."""

import argparse
import base64
import os
import subprocess
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml

from ssasr.cli import commands as cli
from ssasr.cli.conflicts import check_conflicts
from ssasr.cli.options import resolve
from ssasr.gateway.gateway import FINAL_WORDS_DEADLINE
from tests.docker import compose
from tests.harness.nginx import SERVERS, TEMPLATE
from tests.harness.processes import server

CHART = compose.DOCKER / "helm" / "ssasr"
CLUSTERS = ("1.27", "1.33")
FOREIGN = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds of operators, which the API's own schemas do not know."""

EVERYTHING = {
    "gateway": {
        "tlsSecret": "public-tls",
        "apiKeysSecret": "keys",
        "workers": 2,
        "usage": {"existingClaim": "usage", "pushUrl": "https://u", "pushTokenSecret": "push"},
        "licence": {"secret": "licence"},
        "maxSessions": 100,
        "maxUpload": 100,
        "speechModelAliases": {"best": "universal-streaming-english"},
        "webhooks": {"hosts": ["hooks.example.com", "10.2.0.0/16"]},
        "llm": {"url": "http://llm:8000/v1", "keySecret": "llm-key"},
        "redaction": {"enabled": True, "model": "en_core_web_lg"},
        "asrEndpoint": "wss://engines:443",
        "asrCaSecret": "asr-ca",
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "host": "speech.example", "tlsSecret": "speech-tls"},
        "service": {
            "type": "LoadBalancer",
            "sourceRanges": ["192.0.2.0/24"],
            "externalTrafficPolicy": "Local",
        },
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "serviceAccountName": "speech",
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "speech"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
    "autoscaling": {"kind": "keda"},
    "tracing": {"endpoint": "http://otel.observe:4318"},
    "extraLabels": {"owner": "speech"},
    "engineSecret": "engines",
    "engines": {
        "english": {
            "strategy": {"type": "Recreate"},
            "maxStreams": 10,
            "threads": 2,
            "chunkMs": 560,
            "modelsClaim": "weights",
        },
        "english-l4": {"serves": "english", "gpus": 0, "nodeSelector": {"gpu": "l4"}},
    },
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
}
WITHOUT_A_SETTING = {
    "gateway": {
        "SSASR_HOST",  # of the image
        "SSASR_LOG_FORMAT",  # of the image
        "SSASR_API_KEYS",  # a file
    },
    "engine": {
        "SSASR_HOST",
        "SSASR_LOG_FORMAT",
        "SSASR_ENGINE_KIND",  # for tests
    },
}
"""Options that the chart has no value for; ``extraEnv`` sets them."""
CPU = {
    "engines": {"english": {"gpus": 0, "maxStreams": 4}, "multilingual": {"enabled": False}},
    "autoscaling": {"kind": "hpa"},
}
EXAMPLES = {path.stem: yaml.safe_load(path.read_text()) for path in CHART.parent.glob("examples/*")}
VARIANTS = pytest.mark.parametrize("values", [{}, EVERYTHING, CPU], ids=["plain", "all", "cpu"])


def render(values: dict) -> list[dict]:
    """As ``helm template`` does it: there is no cluster, so the tokens' secret has to be given."""
    return render_as_given(
        {**values, "gateway": {"tokenSecret": "1" * 16} | values.get("gateway", {})}
    )


def render_as_given(values: dict) -> list[dict]:
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="asr", namespace="speech")
    texts = [text for name, text in rendered.items() if not name.endswith("NOTES.txt")]
    return [item for text in texts for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def of_kind(items: list[dict], kind: str) -> dict[str, dict]:
    return {item["metadata"]["name"]: item for item in items if item["kind"] == kind}


def container(deployment: dict) -> dict:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


def environment(deployment: dict) -> dict[str, str]:
    entries = container(deployment)["env"]
    return {entry["name"]: entry["value"] for entry in entries if "value" in entry}


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, CPU, *EXAMPLES.values()],
    ids=["plain", "all", "without a GPU", *EXAMPLES],
)
def test_what_is_rendered_is_valid(values: dict):
    for item in render(values):
        if item["kind"] not in FOREIGN:
            for version in CLUSTERS:
                kubernetes_validate.validate(item, version, strict=True)


def test_validation_finds_mistakes():
    deployment = of_kind(render({}), "Deployment")["asr-english"]
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePull"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, CLUSTERS[-1], strict=True)


def test_lint_has_nothing_to_say():
    found = helm_python.lint(CHART)
    assert all(m["severity"] <= 1 for m in found["messages"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"gatway": {}},
        {"engines": {"german": {}}},
        {"engines": {"english": {"replica": 2}}},
        {"autoscaling": {"kind": "auto"}},
        {"lb": {"ipv6": True}},
    ],
)
def test_unknown_values_are_refused(wrong: dict):
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmError):
        chart.validate_schema(wrong)


def test_the_chart_carries_the_very_template_of_the_balancer():
    config = of_kind(render({}), "ConfigMap")["asr-lb"]
    assert config["data"]["nginx.conf.template"] == TEMPLATE.read_text()
    assert config["data"]["servers.envsh"] == SERVERS.read_text()


@VARIANTS
def test_every_environment_variable_means_something(values: dict):
    known = {option.variable for command in cli.COMMANDS.values() for option in command.options}
    known |= {"SSASR_MODELS_DIR"}
    for deployment in of_kind(render(values), "Deployment").values():
        names = {name for name in environment(deployment) if name.startswith("SSASR_")}
        assert names <= known
        pod = deployment["spec"]["template"]["spec"]
        assert pod["enableServiceLinks"] is False, "they would be SSASR_ variables of no meaning"


@pytest.mark.parametrize(
    ("command", "name"), [("gateway", "asr-gateway"), ("engine", "asr-english")]
)
def test_every_option_has_a_value_or_is_known_to_have_none(command: str, name: str):
    options = {option.variable for option in cli.COMMANDS[command].options}
    settable: set[str] = set()
    for values in (EVERYTHING, {"gateway": {"maxConnectionsPerAddress": 10}}):
        entries = container(of_kind(render(values), "Deployment")[name])["env"]
        settable |= {entry["name"] for entry in entries}
    assert options - settable == WITHOUT_A_SETTING[command]


@pytest.mark.parametrize("values", [{}, EVERYTHING, CPU, *EXAMPLES.values()])
def test_what_is_rendered_fits_together(values: dict):
    """As the program sees it: it would not start otherwise."""
    for name, deployment in of_kind(render(values), "Deployment").items():
        if name != "asr-lb":
            command = cli.COMMANDS["gateway" if name == "asr-gateway" else "engine"]
            nothing = argparse.Namespace(**{option.dest: None for option in command.options})
            check_conflicts(resolve(command.options, nothing, environment(deployment)))


@pytest.mark.parametrize(
    "gateway",
    [
        {"maxConnectionsPerAddress": 10, "workers": 2},
        {"asrCaSecret": "ca"},
        {"asrCaSecret": "ca", "asrEndpoint": "ws://engines:1"},
        {"usage": {"pushUrl": "https://u"}},
        {"usage": {"existingClaim": "usage", "pushTokenSecret": "push"}},
        {"llm": {"keySecret": "key"}},
        {"redaction": {"model": "larger"}},
        {"replicas": 1, "webhooks": {"existingClaim": "hooks"}},
    ],
)
def test_what_does_not_is_refused(gateway: dict):
    with pytest.raises(helm_python.HelmError, match=rf"gateway\.({'|'.join(gateway)})"):
        render({"gateway": gateway})


def test_keys_and_the_secret_of_tokens_are_where_the_gateway_looks():
    secret = of_kind(render({"gateway": {"apiKeys": ["one", "two 5"]}}), "Secret")
    data = {k: base64.b64decode(v) for k, v in secret["asr-gateway-keys"]["data"].items()}
    assert data["keys"].splitlines() == [b"one", b"two 5"]
    assert len(data["token"]) >= 16
    gateway = environment(of_kind(render({}), "Deployment")["asr-gateway"])
    folder = "/etc/ssasr/keys/"
    assert gateway["SSASR_API_KEYS_FILE"] == folder + "keys"
    assert gateway["SSASR_TOKEN_SECRET_FILE"] == folder + "token"
    assert of_kind(render(EVERYTHING), "Secret") == {}


def test_a_given_token_secret_is_the_same_in_every_rendering():
    given = {"gateway": {"tokenSecret": "0123456789abcdef"}}
    one, other = (of_kind(render(given), "Secret")["asr-gateway-keys"] for _ in range(2))
    assert one == other
    assert base64.b64decode(one["data"]["token"]) == b"0123456789abcdef"


def test_no_token_secret_is_made_that_would_be_another_one_the_next_time():
    with pytest.raises(helm_python.HelmError, match=r"gateway.tokenSecret is needed"):
        render_as_given({})
    assert of_kind(render_as_given({"gateway": {"apiKeysSecret": "keys"}}), "Secret") == {}


def test_new_keys_roll_the_gateways():
    def checksum(keys: list[str]) -> str:
        deployment = of_kind(render({"gateway": {"apiKeys": keys}}), "Deployment")["asr-gateway"]
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/keys"]

    assert checksum(["one"]) == checksum(["one"]) != checksum(["two"])


def test_a_gateway_is_ready_with_every_model_that_it_offers():
    both = environment(of_kind(render({}), "Deployment")["asr-gateway"])
    assert both["SSASR_ENGINES"] == "english,multilingual"
    one = environment(of_kind(render(CPU), "Deployment")["asr-gateway"])
    assert one["SSASR_ENGINES"] == "english"


def test_images_follow_the_version_unless_they_say_their_own():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    deployments = of_kind(render({}), "Deployment")
    assert container(deployments["asr-gateway"])["image"] == f"ssasr-gateway:{version}"
    assert not any(container(each)["image"].endswith(":latest") for each in deployments.values())
    for own in ("registry:5000/gateway:7", "registry:5000/gateway@sha256:ab"):
        deployment = of_kind(render({"gateway": {"image": own}}), "Deployment")["asr-gateway"]
        assert container(deployment)["image"] == own
    bare = of_kind(render({"gateway": {"image": "registry:5000/gateway"}}), "Deployment")
    assert container(bare["asr-gateway"])["image"] == f"registry:5000/gateway:{version}"


def test_scaling_down_waits_and_survives_a_prometheus_that_is_gone():
    for scaled in of_kind(render(EVERYTHING), "ScaledObject").values():
        config = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
        assert config["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
        assert scaled["spec"]["fallback"]["replicas"] >= 1
    (gateway,) = of_kind(render(EVERYTHING), "HorizontalPodAutoscaler").values()
    assert gateway["spec"]["scaleTargetRef"]["name"] == "asr-gateway"
    assert "replicas" not in of_kind(render(EVERYTHING), "Deployment")["asr-gateway"]["spec"]


def test_the_balancer_knows_the_engines_that_there_are():
    lb = environment(of_kind(render({}), "Deployment")["asr-lb"])
    assert lb["LB_ENGLISH"] == "asr-english.speech.svc.cluster.local:50051"
    assert lb["LB_MULTILINGUAL"] == "asr-multilingual.speech.svc.cluster.local:50051"
    lb = environment(of_kind(render(CPU), "Deployment")["asr-lb"])
    assert lb["LB_MULTILINGUAL"] == "127.0.0.1:1"
    services = of_kind(render({}), "Service")
    assert services["asr-english"]["spec"]["clusterIP"] == "None", "one address a replica"


def test_containers_get_the_same_balancer_settings_as_in_compose():
    theirs = compose.load()["services"]["streaming-asr-lb"]["environment"]
    ours = environment(of_kind(render({}), "Deployment")["asr-lb"])
    differing = {key for key in theirs if theirs[key] != ours[key]}
    assert theirs.keys() == ours.keys()
    assert differing == {"LB_ENGLISH", "LB_MULTILINGUAL"}


@VARIANTS
def test_nothing_may_speak_to_the_outside(values: dict):
    policies = of_kind(render(values), "NetworkPolicy")
    deployments = of_kind(render(values), "Deployment")
    assert policies.keys() == deployments.keys()
    for name, policy in policies.items():
        spec = policy["spec"]
        labels = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= labels.items()
        assert "Egress" in spec["policyTypes"]
        assert all("ipBlock" not in to for rule in spec["egress"] for to in rule["to"])
    for name in policies.keys() & {"asr-english", "asr-multilingual"}:
        assert policies[name]["spec"]["egress"] == []


def test_there_is_time_to_drain():
    for name, deployment in of_kind(render({}), "Deployment").items():
        drain = float(environment(deployment).get("SSASR_DRAIN_SECONDS", 20))
        grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        pause = 5 if "lifecycle" in container(deployment) else 0
        assert grace >= pause + drain + (FINAL_WORDS_DEADLINE if name == "asr-gateway" else 0) + 2


@VARIANTS
def test_selectors_find_exactly_their_pods(values: dict):
    items = render(values)
    pods = {
        name: deployment["spec"]["template"]["metadata"]["labels"]
        for name, deployment in of_kind(items, "Deployment").items()
    }
    for kind in ("Service", "PodDisruptionBudget"):
        for name, item in of_kind(items, kind).items():
            selector = item["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            found = [each for each, labels in pods.items() if wanted.items() <= labels.items()]
            assert found == [name.removesuffix("-metrics")]


def test_a_further_set_of_engines_is_like_the_one_of_its_model_but_for_what_it_says():
    deployments = of_kind(render(EVERYTHING), "Deployment")
    plain, further = deployments["asr-english"], deployments["asr-english-l4"]
    assert further["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "l4"}
    assert (environment(plain)["SSASR_DEVICE"], environment(further)["SSASR_DEVICE"]) == (
        "cuda:0", "cpu",
    )  # fmt: skip
    for name in ("SSASR_MODEL", "SSASR_MODEL_VERSION", "SSASR_DRAIN_SECONDS"):
        assert environment(plain)[name] == environment(further)[name]
    assert plain["spec"]["strategy"] == {"type": "Recreate"}
    english = environment(deployments["asr-lb"])["LB_ENGLISH"]
    assert english.split() == [
        "asr-english.speech.svc.cluster.local:50051",
        "asr-english-l4.speech.svc.cluster.local:50051",
    ]
    assert environment(deployments["asr-gateway"])["SSASR_ENGINES"] == "english,multilingual"
    egress = of_kind(render(EVERYTHING), "NetworkPolicy")["asr-lb"]["spec"]["egress"]
    assert "engine-english-l4" in str(egress)


def test_engines_and_gateways_share_a_secret_where_there_is_one():
    for values, there in ((EVERYTHING, True), ({}, False)):
        for name, deployment in of_kind(render(values), "Deployment").items():
            if name != "asr-lb":
                assert ("SSASR_ENGINE_SECRET_FILE" in environment(deployment)) == there


def test_engines_may_be_elsewhere():
    elsewhere = {"gateway": {"asrEndpoint": "wss://asr.example:443", "asrCaSecret": "asr-ca"}}
    gateway = of_kind(render(elsewhere), "Deployment")["asr-gateway"]
    assert environment(gateway)["SSASR_ASR_ENDPOINT"] == "wss://asr.example:443"
    assert environment(gateway)["SSASR_ASR_CA"] == "/etc/ssasr/ca/ca.crt"


def test_metrics_are_for_the_namespace_that_monitors_alone():
    policies = of_kind(render({}), "NetworkPolicy")
    for name in ("asr-gateway", "asr-english"):
        ingress = policies[name]["spec"]["ingress"]
        (allowed,) = [rule for rule in ingress if {"port": "metrics"} in rule["ports"]]
        (peer,) = allowed["from"]
        assert list(peer["namespaceSelector"]["matchLabels"].values()) == ["monitoring"]
        assert allowed["ports"] == [{"port": "metrics"}]
    closed = of_kind(render({"networkPolicy": {"metricsNamespace": ""}}), "NetworkPolicy")
    assert "metrics" not in str(closed["asr-gateway"]["spec"]["ingress"])
    public = of_kind(render({}), "Service")["asr-gateway"]
    assert [port["name"] for port in public["spec"]["ports"]] == ["public"]


def test_probes_can_be_set():
    patient = {"engines": {"english": {"probes": {"startup": {"failureThreshold": 200}}}}}
    probe = container(of_kind(render(patient), "Deployment")["asr-english"])["startupProbe"]
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (200, 5)


def test_webhooks_that_wait_outlive_the_pod_where_there_is_one_gateway():
    one = {"replicas": 1, "webhooks": {"hosts": ["hooks.example"], "existingClaim": "hooks"}}
    gateway = of_kind(render({"gateway": one}), "Deployment")["asr-gateway"]
    folder = environment(gateway)["SSASR_WEBHOOK_DIR"]
    (mounted,) = [m for m in container(gateway)["volumeMounts"] if m["mountPath"] == folder]
    assert mounted["name"] == "webhooks"
    for more in ({"replicas": 2}, {"autoscaling": {"enabled": True}}):
        with pytest.raises(helm_python.HelmError, match="for one gateway"):
            render({"gateway": one | more})


def test_gateways_are_let_out_to_what_is_named_and_to_nothing_else():
    rule = {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 443}]}
    plain = of_kind(render({}), "NetworkPolicy")
    named = of_kind(render({"networkPolicy": {"gatewayEgress": [rule]}}), "NetworkPolicy")
    egress = named["asr-gateway"]["spec"]["egress"]
    assert rule in egress
    assert [each for each in egress if each != rule] == plain["asr-gateway"]["spec"]["egress"]
    assert {name: plain[name] for name in plain if name != "asr-gateway"} == {
        name: named[name] for name in named if name != "asr-gateway"
    }


def test_weights_from_a_volume_are_looked_at_before_those_in_the_image():
    engine = of_kind(render(EVERYTHING), "Deployment")["asr-english"]
    (mount,) = [m for m in container(engine)["volumeMounts"] if m["name"] == "models"]
    assert (environment(engine)["SSASR_MODELS_DIR"], mount["readOnly"]) == ("/models", True)


def test_a_part_of_a_gpu_has_another_name_and_users_are_the_clusters_to_choose():
    values = {
        "podSecurityContext": {"runAsUser": None, "fsGroup": None},
        "engines": {"english": {"gpuResource": "nvidia.com/mig-1g.10gb"}},
        "lb": {"nodeSelector": {"role": "edge"}},
    }
    deployments = of_kind(render(values), "Deployment")
    limits = container(deployments["asr-english"])["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.10gb"] == 1
    assert "nvidia.com/gpu" not in limits
    for name in ("asr-english", "asr-gateway"):
        pod = deployments[name]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not {"runAsUser", "fsGroup"} & pod["securityContext"].keys()
    assert deployments["asr-lb"]["spec"]["template"]["spec"]["nodeSelector"] == {"role": "edge"}


@pytest.mark.slow
def test_helm_test_opens_a_session(tmp_path):
    """The pod's own script, against a gateway with the keys of the chart's secret."""
    items = render({"gateway": {"apiKeys": ["first 2", "second"]}})
    pod, secret = of_kind(items, "Pod")["asr-test"], of_kind(items, "Secret")["asr-gateway-keys"]
    (session,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    keys = tmp_path / "keys"
    keys.write_bytes(base64.b64decode(secret["data"]["keys"]))
    script = session["args"][0].replace("/etc/ssasr/keys/keys", str(keys))
    with server("--engine-kind", "scripted", "--api-keys-file", keys) as (_, port):
        given = {entry["name"]: entry["value"] for entry in session["env"]}
        assert given == {"SSASR_ENDPOINT": "ws://asr-gateway:8080/v3/ws"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ours = {"SSASR_ENDPOINT": f"ws://127.0.0.1:{port}/v3/ws", "PATH": path}
        done = subprocess.run(
            [*session["command"], script], env=ours, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Pod" not in {item["kind"] for item in render(EVERYTHING)}, "a certificate for others"


def test_gpus_and_autoscaling_are_as_asked():
    plain, cpu, everything = render({}), render(CPU), render(EVERYTHING)
    limits = container(of_kind(plain, "Deployment")["asr-english"])["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1
    engine = of_kind(cpu, "Deployment")["asr-english"]
    assert "nvidia.com/gpu" not in container(engine)["resources"]["limits"]
    assert environment(engine)["SSASR_DEVICE"] == "cpu"
    assert "replicas" not in engine["spec"], "the autoscaler owns the number"
    assert of_kind(cpu, "HorizontalPodAutoscaler").keys() == {"asr-english"}
    assert of_kind(everything, "ScaledObject").keys() == {
        "asr-english", "asr-english-l4", "asr-multilingual",
    }  # fmt: skip
    assert not FOREIGN & {item["kind"] for item in plain}


def test_traces_open_one_way_out_and_no_other():
    traced = {"tracing": {"endpoint": "http://otel.observe:4318", "namespace": "observe"}}
    for name, deployment in of_kind(render(traced), "Deployment").items():
        assert ("SSASR_OTLP_ENDPOINT" in environment(deployment)) == (name != "asr-lb")
    for name, policy in of_kind(render(traced), "NetworkPolicy").items():
        spaces = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for rule in policy["spec"]["egress"]
            for peer in rule["to"]
            if "namespaceSelector" in peer
        ]
        expected = {"kube-system"} if name == "asr-lb" else {"kube-system", "observe"}
        assert set(spaces) == expected
    elsewhere = {"tracing": {"endpoint": "http://192.0.2.1:4318"}}
    assert of_kind(render(elsewhere), "NetworkPolicy") == of_kind(render({}), "NetworkPolicy")
