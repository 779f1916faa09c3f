"""``webhook_url``: one POST at a session's end, with the ends of its turns as the client was shown
them. Off unless the operator names hosts that may be posted to (``--webhook-hosts``).

A host is a name, an address or a network. A name lets in public addresses only: what it resolves to
within a private network has to be listed as well, so that nobody reaches by a name of his own what
he could not name. Each delivery waits in a file of its own, with its text and its header, readable
by the server's user alone, and the file goes once it has been taken or given up.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from ssasr.gateway.outbox.journal import Journal, segments
from ssasr.gateway.outbox.outbox import Backoff, NotTaken, Outbox
from ssasr.net.http_client import RequestFailed, Target, post
from ssasr.protocol.codec import encode
from ssasr.protocol.faults import invalid_value
from ssasr.protocol.integrations import Webhook
from ssasr.protocol.messages import SessionMessage, Turn
from ssasr.session.companion import Companion
from ssasr.telemetry.logs import get_logger

NAME, WHAT = "webhook", "webhooks"
POST_DEADLINE = 10.0
BACKOFF = Backoff(first=1.0, longest=300.0, tries=10)
"""The tenth try comes about eight minutes after the first."""
AT_ONCE = 256
LAST_POSTS_DEADLINE = 8.0
"""Seconds that a drained process waits until each webhook of its own sessions has been tried once:
where its disk goes with it, as a pod's does, there is no later."""
log = get_logger(__name__)

_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


_EMBEDDING = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
)
"""Addresses that end in an IPv4 address, which is where a translator (NAT64) takes them."""
_INWARD = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "2002::/16", "fec0::/10")))
"""A translator of the house's own, 6to4, site-local: ``ipaddress`` counts these as global."""


def is_public(address: str) -> bool:
    """Whether it leads out of every private network, in whatever way it is written."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in _INWARD):
            return False
        if any(found in network for network in _EMBEDDING):
            found = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    return found.is_global and not found.is_multicast


@frozen
class WebhookHosts:
    """Who may be posted to."""

    names: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, text: str) -> "WebhookHosts":
        """Names, addresses and networks, with commas between. Raises ValueError."""
        names, networks = set(), []
        for each in (part.strip().lower() for part in text.split(",")):
            try:
                networks.append(ipaddress.ip_network(each))
            except ValueError:
                if not _NAME.fullmatch(each):
                    raise ValueError(f"{each!r} is no host, address or network") from None
                names.add(each)
        return cls(frozenset(names), tuple(networks))

    def lists(self, host: str) -> bool:
        """As it stands in an address."""
        return host.lower() in self.names or self._lists_address(host)

    def allows(self, address: str) -> bool:
        """Whether what a listed name resolved to may be connected to."""
        return self._lists_address(address) or is_public(address)

    def _lists_address(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


@define(eq=False)
class Webhooks:
    """``journal``: as ``open_webhooks`` makes it; ``on_result``: as ``Outbox``'s."""

    hosts: WebhookHosts
    journal: Journal
    on_result: Callable[[str], None]
    _untried: set[str] = field(factory=set)
    """Sessions of this process whose webhook has not been tried yet."""
    _tried: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def companion(self, session_id: str, webhook: Webhook) -> "CollectedTurns":
        """Raises ClientFault 3006."""
        try:
            host = Target.parse(webhook.url).host
        except ValueError as error:
            raise invalid_value("webhook_url", str(error)) from None
        if not self.hosts.lists(host):
            raise invalid_value("webhook_url", "this server may not post to that host")
        return CollectedTurns(self, session_id, webhook)

    def post(self, session_id: str, webhook: Webhook, turns: Iterable[str]) -> None:
        """Sooner or later."""
        body = f'{{"session_id":{json.dumps(session_id)},"messages":[{",".join(turns)}]}}'
        header = [] if webhook.header is None else list(webhook.header)
        entry = {"session_id": session_id, "url": webhook.url, "header": header, "body": body}
        self._untried.add(session_id)
        self.journal.add(json.dumps(entry).encode() + b"\n")

    async def last_posts(self) -> None:
        """Wait until each has been tried once, but not for ever."""
        with trio.move_on_after(LAST_POSTS_DEADLINE):
            while self._untried:
                await self._tried.park()

    def _note_try(self, session_id: str) -> None:
        self._untried.discard(session_id)
        self._tried.unpark_all()

    def outbox(self, backoff: Backoff = BACKOFF) -> Outbox:
        queue = WebhookQueue(self.journal, self.hosts, self._note_try)
        return Outbox(queue, backoff, AT_ONCE, self.on_result)


@define(eq=False)
class CollectedTurns(Companion):
    """Keeps the ends of a session's turns."""

    webhooks: Webhooks
    session_id: str
    webhook: Webhook
    turns: list[str] = field(factory=list)

    async def __call__(self, message: SessionMessage) -> SessionMessage:
        if isinstance(message, Turn) and message.end_of_turn:
            self.turns.append(encode(message))
        return message

    def ended(self) -> None:
        self.webhooks.post(self.session_id, self.webhook, self.turns)


def open_webhooks(directory: Path) -> Journal:
    """Raises StartRefused."""
    return Journal(directory, NAME, WHAT, segment_bytes=0, mode=0o600).prepare()


@frozen(eq=False)
class WebhookDelivery:
    """One session's."""

    path: Path
    hosts: WebhookHosts
    tried: Callable[[], None]
    """Called when a try is over."""
    url: str
    header: tuple[str, ...] = field(repr=False)
    body: str = field(repr=False)

    async def send(self) -> None:
        try:
            await self._post()
        finally:
            self.tried()

    async def _post(self) -> None:
        target = Target.parse(self.url)
        if not self.hosts.lists(target.host):  # the operator has changed his mind
            raise NotTaken(f"{target.host} may not be posted to any more", final=True)
        headers = {"Content-Type": "application/json"}
        if self.header:
            headers[self.header[0]] = self.header[1]
        try:
            answer = await post(
                target, headers, self.body.encode(), seconds=POST_DEADLINE,
                allowed=self.hosts.allows,
            )  # fmt: skip
        except RequestFailed as failed:
            raise NotTaken(str(failed)) from failed
        if not 200 <= answer.status < 300:
            final = 400 <= answer.status < 500
            raise NotTaken(f"{target.host} answered {answer.status}", final=final)

    async def forget(self) -> None:
        """Raises OSError."""
        await trio.to_thread.run_sync(partial(self.path.unlink, missing_ok=True))


@define(eq=False)
class WebhookQueue:
    journal: Journal
    hosts: WebhookHosts
    tried: Callable[[str], None]
    """Called with a session's id when its webhook has been tried."""
    what: str = WHAT
    _known: set[Path] = field(factory=set)
    """What is under way, or is no webhook."""

    async def next(self) -> WebhookDelivery:
        while True:
            growth = self.journal.growth
            waiting = await trio.to_thread.run_sync(segments, self.journal.directory, NAME)
            self._known &= set(waiting)
            for path in waiting:
                if path in self._known:
                    continue
                self._known.add(path)
                try:
                    delivery = await trio.to_thread.run_sync(self._read, path)
                except OSError as error:  # too many open files, perhaps: with the next one again
                    self._known.discard(path)
                    log.error("a webhook cannot be read now", file=path.name, reason=str(error))
                    continue
                if delivery is not None:
                    return delivery
            await growth.wait()

    def _read(self, path: Path) -> WebhookDelivery | None:
        """None: it is no webhook, and stays for somebody to look at. Raises OSError."""
        try:
            entry = json.loads(path.read_bytes())
            tried = partial(self.tried, entry.get("session_id", ""))
            header = tuple(entry["header"])
            return WebhookDelivery(path, self.hosts, tried, entry["url"], header, entry["body"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("a webhook cannot be read and stays", file=path.name, reason=str(error))
            return None
