"""Webhooks: what is posted and to whom, that it survives, and what is refused."""

import json
import urllib.parse

import pytest
import trio

from ssasr.gateway.outbox.outbox import Backoff
from ssasr.gateway.webhooks import LAST_POSTS_DEADLINE, NAME, WebhookHosts, Webhooks, open_webhooks
from ssasr.net.http_client import RequestFailed, Target, post
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.integrations import Webhook
from ssasr.protocol.parameters import parse_parameters
from tests.harness.clients import converse, speech_like
from tests.harness.collecting_server import CollectingServer

LOOPBACK = "127.0.0.0/8"
QUICK = Backoff(first=0.01, longest=0.02, tries=10)


@pytest.fixture
async def receiver(nursery):
    server = CollectingServer()
    await nursery.start(server.run)
    yield server
    nursery.cancel_scope.cancel()


def made(directory, hosts=LOOPBACK):
    return Webhooks(WebhookHosts.parse(hosts), open_webhooks(directory), lambda _: None)


async def sent(webhooks, *, until=1, backoff=QUICK):
    """What waits, sent until ``until`` deliveries have been taken or given up."""
    outbox = webhooks.outbox(backoff)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhooks.journal.run)
        nursery.start_soon(outbox.run)
        with trio.fail_after(60):
            while outbox.forgotten < until:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return outbox


def left(webhooks):
    return list(webhooks.journal.directory.glob(f"{NAME}-*"))


def post_to(receiver, webhooks, number=1, path="/hook?x=1", header=None):
    url = f"http://127.0.0.1:{receiver.port}{path}"
    webhooks.post(f"session-{number}", Webhook(url, header), ['{"transcript":"hello"}'])


async def test_a_session_that_asked_is_posted_when_it_has_ended(served, receiver, tmp_path):
    webhooks = served.gateway.features.webhooks = made(tmp_path)
    url = urllib.parse.quote(f"http://127.0.0.1:{receiver.port}/hook?x=1", safe="")
    transcript = await converse(
        served.url, speech_like(8.0), sample_rate=16_000, webhook_url=url,
        webhook_auth_header_name="X-Secret", webhook_auth_header_value="s3cret",
    )  # fmt: skip
    with trio.fail_after(60):
        while not webhooks.journal.pending:
            await trio.sleep(0.01)
    await sent(webhooks)
    assert left(webhooks) == []
    (posted,) = receiver.taken
    assert posted.path == "/hook?x=1"
    assert posted.headers["x-secret"] == "s3cret"
    assert posted.headers["content-type"] == "application/json"
    body = json.loads(posted.body)
    assert body["session_id"] == transcript.messages[0]["id"]
    assert body["messages"] == [turn for turn in transcript.turns if turn["end_of_turn"]]


@pytest.mark.parametrize(
    ("script", "posts", "given_up"),
    [([503, 0, 301, 200], 4, 0), ([404], 1, 1), ([500] * 20, 10, 1)],
    ids=["later", "never", "ten tries"],
)
async def test_what_an_answer_means(receiver, tmp_path, script, posts, given_up):
    receiver.script = list(script)
    webhooks = made(tmp_path)
    post_to(receiver, webhooks)
    outbox = await sent(webhooks)
    assert len(receiver.posts) == posts
    assert outbox.given_up == given_up
    assert all(each.path == "/hook?x=1" for each in receiver.posts), "no redirect is followed"


async def test_what_waits_survives_a_restart(receiver, tmp_path):
    receiver.script = [503] * 3
    webhooks = made(tmp_path)
    for number in range(3):
        post_to(receiver, webhooks, number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhooks.journal.run)
        nursery.start_soon(webhooks.outbox(Backoff(first=60)).run)
        await receiver.wait_posts(3)
        nursery.cancel_scope.cancel()
    assert len(left(webhooks)) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in left(webhooks)), "for nobody else"
    await sent(made(tmp_path), until=3)
    ids = sorted(json.loads(each.body)["session_id"] for each in receiver.taken)
    assert ids == ["session-0", "session-1", "session-2"]


async def test_one_that_comes_when_the_last_has_been_taken(receiver, tmp_path, nursery):
    webhooks = made(tmp_path)
    outbox = webhooks.outbox(QUICK)
    nursery.start_soon(webhooks.journal.run)
    nursery.start_soon(outbox.run)
    with trio.fail_after(60):
        for number in range(1, 4):
            post_to(receiver, webhooks, number)
            while outbox.forgotten < number:
                await trio.sleep(0.01)
    assert len(receiver.taken) == 3


async def test_a_drained_process_waits_for_each_to_be_tried_once(receiver, tmp_path, nursery):
    receiver.script = [503]
    webhooks = made(tmp_path)
    await webhooks.last_posts()
    nursery.start_soon(webhooks.journal.run)
    nursery.start_soon(webhooks.outbox(Backoff(first=60)).run)
    for number in range(2):
        post_to(receiver, webhooks, number)
    await webhooks.last_posts()
    assert len(receiver.posts) == 2


async def test_but_not_for_ever(tmp_path, autojump_clock):
    webhooks = made(tmp_path)
    webhooks.post("nobody sends it", Webhook("http://127.0.0.1:1/"), [])
    began = trio.current_time()
    await webhooks.last_posts()
    assert trio.current_time() - began == LAST_POSTS_DEADLINE


async def test_a_place_that_is_down_holds_up_nobody(receiver, tmp_path):
    webhooks = made(tmp_path)
    webhooks.post("down", Webhook("http://127.0.0.1:1/"), [])
    post_to(receiver, webhooks)
    await sent(webhooks, backoff=Backoff(first=60))
    assert len(receiver.taken) == 1


async def test_a_file_that_is_damaged_stays_and_holds_up_nobody(receiver, tmp_path):
    (tmp_path / f"{NAME}-00000001.jsonl").write_text("[]\n")
    webhooks = made(tmp_path)
    post_to(receiver, webhooks)
    await sent(webhooks)
    assert len(receiver.taken) == 1


async def test_a_file_that_cannot_be_read_for_a_while_is_sent_later(receiver, tmp_path, nursery):
    webhooks = made(tmp_path)
    unread = tmp_path / f"{NAME}-00000001.jsonl"
    unread.mkdir()  # as good as one too many for the process
    outbox = webhooks.outbox(QUICK)
    nursery.start_soon(webhooks.journal.run)
    nursery.start_soon(outbox.run)
    post_to(receiver, webhooks)
    await receiver.wait_posts(1)
    whole = tmp_path / "whole"
    url = f"http://127.0.0.1:{receiver.port}/"
    whole.write_text(json.dumps({"session_id": "late", "url": url, "header": [], "body": "{}"}))
    unread.rmdir()
    whole.rename(unread)
    post_to(receiver, webhooks, 2)
    await receiver.wait_posts(3)
    assert "{}" in [each.body.decode() for each in receiver.posts]


async def test_a_host_that_is_listed_no_more_gets_nothing(receiver, tmp_path):
    webhooks = made(tmp_path, "hooks.example")
    post_to(receiver, webhooks)
    outbox = await sent(webhooks)
    assert (receiver.posts, outbox.given_up) == ([], 1)
    assert outbox.failures == 1, "no further try can help"


async def test_a_name_does_not_lead_into_a_private_network(receiver):
    target = Target.parse(f"http://localhost:{receiver.port}/")
    by_name = WebhookHosts.parse("localhost")
    assert by_name.lists("LOCALHOST")
    with pytest.raises(RequestFailed, match="no address that is allowed"):
        await post(target, {}, b"", seconds=5, allowed=by_name.allows)
    both = WebhookHosts.parse("localhost, 127.0.0.1")
    assert (await post(target, {}, b"", seconds=5, allowed=both.allows)).status == 200


@pytest.mark.parametrize("value", ["", " ", "a\r\nX: y"])
async def test_a_header_that_is_none_is_a_request_that_fails(receiver, value):
    """And nothing else: whatever asks for it goes on."""
    target = Target.parse(f"http://127.0.0.1:{receiver.port}/")
    with pytest.raises(RequestFailed, match="cannot be asked so"):
        await post(target, {"Authorization": f"Bearer {value}"}, b"", seconds=5)
    assert not any(each.path for each in receiver.posts)


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "fd00::1",
        "fe80::1", "fec0::1", "ff02::1", "::ffff:10.1.2.3", "::10.1.2.3", "::ffff:0:10.1.2.3",
        "64:ff9b::10.1.2.3", "64:ff9b:1::1", "2002:a01:203::1", "2001:0:a01:203::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_need_to_be_listed(address):
    assert not WebhookHosts.parse("hooks.example").allows(address)
    assert WebhookHosts.parse(f"hooks.example,{address}").allows(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.215.14", "2606:2800:21f::1", "::ffff:93.184.215.14", "64:ff9b::93.184.215.14"],
)
def test_public_ones_do_not(address):
    assert WebhookHosts.parse("hooks.example").allows(address)


@pytest.mark.parametrize("text", ["", "a b", "http://x", "*.example", "10.0.0.1/8", "x,"])
def test_lists_that_are_none(text):
    with pytest.raises(ValueError, match="is no host"):
        WebhookHosts.parse(text)


URL = "webhook_url=https%3A%2F%2Fhooks.example%2F"


@pytest.mark.parametrize(
    "query",
    [
        "webhook_auth_header_name=X-A&webhook_auth_header_value=b",
        f"{URL}&webhook_auth_header_name=X-A",
        f"{URL}&webhook_auth_header_value=b",
        f"{URL}&webhook_auth_header_name=X%20A&webhook_auth_header_value=b",
        f"{URL}&webhook_auth_header_name=Host&webhook_auth_header_value=b",
        f"{URL}&webhook_auth_header_name=X-A&webhook_auth_header_value=b%0D%0AX: y",
        "webhook_url=" + "x" * 2_049,
    ],
)
def test_parameters_that_cannot_be_used(query):
    with pytest.raises(ClientFault):
        parse_parameters(query)


async def closes(served, **query):
    transcript = await converse(served.url, speech_like(0.5), sample_rate=16_000, **query)
    return transcript.close_code, transcript.messages[-1]["error"]


async def test_refused_where_no_host_is_named_and_where_this_one_is_not(served, tmp_path):
    url = urllib.parse.quote("https://elsewhere.example/", safe="")
    code, text = await closes(served, webhook_url=url)
    assert (code, "started without --webhook-hosts" in text) == (3006, True)
    served.gateway.features.webhooks = made(tmp_path, "hooks.example")
    code, text = await closes(served, webhook_url=url)
    assert (code, "may not post to that host" in text) == (3006, True)
    code, text = await closes(served, webhook_url="ftp%3A%2F%2Fhooks.example%2F")
    assert code == 3006
