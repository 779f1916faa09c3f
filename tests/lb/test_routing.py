"""The shipped nginx template in a real nginx, in front of stub engines."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from ssasr.errors import EngineUnavailable
from ssasr.protocol.liveness import GATEWAY
from ssasr.protocol.recognition import Open, StreamOptions
from ssasr.routing import engine_client
from tests.harness.name_server import NameServer
from tests.harness.nginx import TEMPLATE, Nginx, find_nginx, render, wait_listening
from tests.lb.conftest import PORT, Cluster, StubEngine, cluster, free_port

pytestmark = [pytest.mark.nginx, pytest.mark.slow]

EN, EN2, ML = "127.0.0.2", "127.0.0.3", "127.0.0.4"


async def test_the_model_version_chooses_the_engine(run_dir: Path):
    engines = [StubEngine(EN), StubEngine(ML)]
    names = {"english.test": [EN], "multilingual.test": [ML]}
    async with cluster(run_dir, engines, names) as c:
        for version, address in [("en-default", EN), ("ml-default", ML)] * 3:
            async with c.stream(version) as (websocket, answered):
                assert answered == address
                await websocket.send_message("still the same")
                assert await websocket.get_message() == "still the same"


@pytest.mark.parametrize("version", [None, "", "en", "EN-DEFAULT2", "fr-default", "english"])
async def test_an_unknown_version_is_refused_and_reaches_no_engine(run_dir: Path, version):
    engines = [StubEngine(EN), StubEngine(ML)]
    names = {"english.test": [EN], "multilingual.test": [ML]}
    async with cluster(run_dir, engines, names) as c:
        refusal = await c.refusal(version)
        assert refusal.status_code == 400
        assert json.loads(refusal.body) == {"error": "Unknown X-Model-Version"}
        assert [engine.handshakes for engine in engines] == [0, 0]


async def test_a_full_replica_is_passed_over(run_dir: Path):
    engines = [StubEngine(EN, room=0), StubEngine(EN2)]
    async with cluster(run_dir, engines, {"english.test": [EN, EN2]}) as c:
        for _ in range(6):
            async with c.stream() as (_, answered):
                assert answered == EN2
        assert engines[0].handshakes >= 2, "it was asked, and asked again: it may have room now"


async def test_all_full_says_so_with_the_engines_own_words(run_dir: Path):
    engines = [StubEngine(EN, room=0), StubEngine(EN2, room=0)]
    async with cluster(run_dir, engines, {"english.test": [EN, EN2]}) as c:
        for _ in range(3):  # a refusal does not make the next one different
            refusal = await c.refusal("en-default")
            assert refusal.status_code == 503
            assert (b"x-ssasr-refusal", b"full") in refusal.headers
        assert [engine.handshakes for engine in engines] == [3, 3]


async def test_a_dead_replica_is_passed_over_and_no_stream_goes_to_it(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN2)], {"english.test": [EN, EN2]}) as c:
        for _ in range(4):
            async with c.stream() as (_, answered):
                assert answered == EN2


async def test_a_replica_that_never_answers_is_passed_over_in_time(run_dir: Path):
    engines = [StubEngine(EN, silent=True), StubEngine(EN2)]
    names = {"english.test": [EN, EN2]}
    async with cluster(run_dir, engines, names, link_timeout="1s") as c:
        for _ in range(2):
            async with c.stream() as (_, answered):
                assert answered == EN2
        assert engines[0].handshakes >= 1


async def test_further_attempts_go_round(run_dir: Path):
    """A replica that hangs has few connections; by ``least_conn`` it would get every new one."""
    engines = [StubEngine(EN, silent=True), StubEngine(EN2)]
    async with cluster(run_dir, engines, {"english.test": [EN, EN2]}) as c:
        reached = []

        async def attempt():
            async with c.stream(attempt=2) as (_, answered):
                reached.append(answered)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(attempt)
            await c.until(lambda: len(reached) + engines[0].handshakes == 20)
            nursery.cancel_scope.cancel()
        assert len(reached) == 10


async def test_a_gateway_gets_past_a_replica_that_hangs(run_dir: Path, monkeypatch):
    """Its streams have left it, so it has the fewest. A gateway that is sent there again and again
    would call the model unreachable for as long as it hangs. (The stub speaks no engine link; that
    it is found out is the sign that it was reached.)"""
    monkeypatch.setattr(engine_client, "CONNECT_SECONDS", 3.0)
    hanging, other = StubEngine(EN), StubEngine(EN2)
    async with cluster(run_dir, [hanging, other], {"english.test": [EN, EN2]}) as c:
        leave = {EN: trio.Event(), EN2: trio.Event()}

        async def hold(*, task_status):
            async with c.stream() as (_, address):
                task_status.started()
                await leave[address].wait()

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                await nursery.start(hold)
            leave[EN].set()
            await c.until(lambda: hanging.streams == 0)
            hanging.silent = True
            address = engine_client.Address.parse(c.nginx.url.replace("http", "ws"))
            client = engine_client.EngineClient(address, ["en-default"], required=True)
            before = hanging.handshakes
            assert "does not speak" in await refusal(client)
            assert hanging.handshakes > before
            leave[EN2].set()


async def refusal(client: engine_client.EngineClient) -> str:
    with pytest.raises(EngineUnavailable) as caught:
        async with client.open_stream("en-default", Open("an-id", StreamOptions())):
            pass
    return str(caught.value)


async def test_no_engine_at_all_is_an_error_of_ours(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {"english.test": [EN]}) as c:
        refusal = await c.refusal("ml-default")
        assert refusal.status_code == 503
        assert json.loads(refusal.body) == {"error": "No engine of this model can be reached"}
        async with c.stream() as (_, answered):
            assert answered == EN


async def test_the_replica_with_the_fewest_streams_gets_the_next(run_dir: Path):
    engines = [StubEngine(EN), StubEngine(EN2)]
    async with cluster(run_dir, engines, {"english.test": [EN, EN2]}) as c:
        async with trio.open_nursery() as nursery:

            async def hold(*, task_status):
                async with c.stream() as (_, answered):
                    task_status.started(answered)
                    await trio.sleep_forever()

            taken = [await nursery.start(hold) for _ in range(10)]
            assert sorted(taken) == [EN] * 5 + [EN2] * 5
            nursery.cancel_scope.cancel()


async def test_replicas_join_and_leave_by_name(run_dir: Path):
    engines = [StubEngine(EN), StubEngine(EN2)]
    async with cluster(run_dir, engines, {"english.test": [EN]}) as c:

        async def taken(n: int) -> set[str]:
            answers = set()
            for _ in range(n):
                async with c.stream() as (_, answered):
                    answers.add(answered)
            return answers

        assert await taken(4) == {EN}
        async with c.stream() as (old, _):
            c.names.addresses["english.test"] = [EN, EN2]
            with trio.fail_after(60):
                while EN2 not in await taken(2):  # noqa: ASYNC110  nginx tells nobody
                    await trio.sleep(0.1)
            c.names.addresses["english.test"] = [EN2]
            with trio.fail_after(60):
                while await taken(4) != {EN2}:  # noqa: ASYNC110  nginx tells nobody
                    await trio.sleep(0.1)
            await old.send_message("a stream stays where it is")
            assert await old.get_message() == "a stream stays where it is"


async def test_a_name_that_does_not_exist_yet_does_not_stop_the_start(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {}) as c:
        assert (await c.refusal("en-default")).status_code == 503
        c.names.addresses["english.test"] = [EN]
        with trio.fail_after(30):
            while True:
                try:
                    async with c.stream() as (_, answered):
                        assert answered == EN
                        return
                except Exception:  # refused until the name is known
                    await trio.sleep(0.2)


async def test_a_silent_stream_is_cut_after_the_link_timeout(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {"english.test": [EN]}, link_timeout="1s") as c:
        began = trio.current_time()
        with pytest.RaisesGroup(ConnectionClosed, flatten_subgroups=True):
            async with c.stream() as (websocket, _):
                await websocket.get_message()
        assert 0.9 < trio.current_time() - began < 20
        await c.until(lambda: c.engines[EN].streams == 0)


async def test_health_is_nginx_itself_and_is_not_logged(run_dir: Path):
    async with cluster(run_dir, [], {}) as c:
        answer = await c.get("/nginx_health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["server"] == "nginx", "no version"
        assert c.log() == []


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/streams", "/v1/stream/x", "/%2e%2e/etc"])
async def test_nothing_but_streams_and_probes_is_passed_on(run_dir: Path, path):
    engines = [StubEngine(EN)]
    async with cluster(run_dir, engines, {"english.test": [EN]}) as c:
        answer = await c.get(path, "en-default")
        assert answer.status_code in {400, 404}
        assert set(answer.json()) == {"error"}
        assert engines[0].handshakes == 0


async def test_questions_whether_there_is_an_engine_are_not_logged(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {"english.test": [EN]}) as c:
        for _ in range(3):
            await c.get("/ready", "en-default")
        async with c.stream() as (websocket, _):
            asked = dict(websocket.handshake_headers)[b"x-ssasr-engine"].decode()
        assert asked.endswith(f"{EN}:{PORT}"), "the last one that was asked took the stream"
        await c.until(lambda: c.log())
        assert [line["path"] for line in c.log()] == ["/v1/stream"]


async def test_the_access_log_says_who_served_and_holds_no_query(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {"english.test": [EN]}) as c:
        async with c.stream():
            pass
        await c.refusal("en-default", "/v1/stream?token=s3cr3t&x=1")
        await c.refusal("nope", "/v1/stream?token=s3cr3t")
        await c.refusal("ml-default")
        await c.until(lambda: len(c.log()) == 4)
        served = next(line for line in c.log() if line["status"] == 101)
        assert {line["path"] for line in c.log()} == {"/v1/stream"}
        assert served["engines"].startswith(EN)
        assert {line["status"] for line in c.log()} == {101, 400, 503}
        assert "s3cr3t" not in c.nginx.access_log()
        assert "s3cr3t" not in c.nginx.error_log()


async def test_a_header_too_large_is_refused(run_dir: Path):
    async with cluster(run_dir, [StubEngine(EN)], {"english.test": [EN]}) as c:
        answer = await c.get("/ready", "x" * 40_000)
        assert answer.status_code == 400
        assert set(answer.json()) == {"error"}


def test_the_template_wants_exactly_the_variables_that_its_head_explains():
    text = TEMPLATE.read_text()
    head, _, body = text.partition("daemon off;")
    explained = {line.split()[1] for line in head.splitlines() if line.startswith("#   ")}
    assert render(text, dict.fromkeys(explained, "x"))
    with pytest.raises(KeyError):
        render(body, {})
    with pytest.raises(ValueError, match="LB_TYPO"):
        render(text, dict.fromkeys(explained | {"LB_TYPO"}, "x"))


def test_nginx_cuts_no_link_that_its_ends_think_alive():
    """The default that the template's head names is what Compose and the chart set."""
    (default,) = re.findall(r"LB_LINK_TIMEOUT .* (\d+)s\n", TEMPLATE.read_text())
    longest = GATEWAY.ask_idle + GATEWAY.answer_idle
    assert longest < int(default) < 2 * longest
    for name in ("compose.yaml", "helm/ssasr/templates/lb.yaml"):
        text = (TEMPLATE.parents[1] / "docker" / name).read_text()
        assert re.findall(r"LB_LINK_TIMEOUT\W+(?:value: )?(\w+)", text) == [f"{default}s"]


async def test_several_addresses_on_one_host_without_a_name_server(run_dir: Path):
    """The example of the README, as it stands there but for its addresses."""
    page = TEMPLATE.with_name("README.md").read_text()
    (example,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    port = await free_port()
    own = {"127.0.0.1:50051": f"{EN}:{PORT}", "127.0.0.1:50053": f"{EN2}:{PORT}",
           "127.0.0.1:8081": f"127.0.0.1:{port}", "=/tmp": f"={run_dir}"}  # fmt: skip
    for theirs, ours in own.items():
        assert theirs in example
        example = example.replace(theirs, ours)
    script = run_dir / "example.sh"
    script.write_text(example.replace("\nnginx -c", f"\nexec {find_nginx()} -p {run_dir} -c"))
    async with trio.open_nursery() as nursery:
        engines = [StubEngine(EN), StubEngine(EN2)]
        for engine in engines:
            await nursery.start(engine.run)
        run = partial(trio.run_process, ["bash", "-eu", script], cwd=TEMPLATE.parent,
                      capture_stdout=True, check=False)  # fmt: skip
        process = await nursery.start(run)
        await wait_listening("127.0.0.1", port)
        nginx = Nginx(process, f"http://127.0.0.1:{port}", run_dir / "none")
        c = Cluster(nginx, NameServer({}), nursery)
        taken = set()
        for _ in range(6):
            async with c.stream() as (_, answered):
                taken.add(answered)
        assert taken == {EN, EN2}
        nursery.cancel_scope.cancel()
