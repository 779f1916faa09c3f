"""``/v1/realtime?intent=transcription``: who may come in, and what comes before the session.

A refusal is an HTTP answer to the handshake, as OpenAI's is. The engine and the decoder follow from
``session.update``, so the session begins with whatever else the client sends first, or after
``SETTLE_SECONDS`` with the settings that there are.
"""

import json
import uuid
from collections.abc import Sequence
from urllib.parse import parse_qs

import trio
from attrs import frozen

from ssasr.gateway.auth.access import Grant, bare
from ssasr.gateway.gateway import Gateway, refuse
from ssasr.gateway.openai.client_secrets import ClientSecret
from ssasr.gateway.openai.errors import ApiError, of_fault
from ssasr.gateway.openai.json_object import Refused
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime_link import RealtimeLink
from ssasr.gateway.openai.realtime_settings import RealtimeSettings, Transcription
from ssasr.net.handshake import UpgradeRequest
from ssasr.net.http_server import split_target
from ssasr.net.websocket import WebSocket
from ssasr.protocol.close_codes import CloseCode, EndCause
from ssasr.protocol.faults import ClientFault
from ssasr.runtime.process import plain_nursery
from ssasr.session.session import Session

PATH = "/v1/realtime"
INTENT = "transcription"
SUBPROTOCOL = "realtime"
KEY_IN_SUBPROTOCOL = "openai-insecure-api-key."
"""How a browser, which cannot set a header, sends its key."""
SETTLE_SECONDS = 10.0
SLOWEST_OPENING = 30.0
"""Seconds, for a client that does not even read."""


@frozen(eq=False)
class RealtimeHandler:
    """``names``: the models that sessions may ask for."""

    gateway: Gateway
    names: ModelNames

    async def serve(self, request: UpgradeRequest, nursery: trio.Nursery) -> None:
        """One connection, to its end."""
        try:
            key, settings = asked_for(request)
            grant = self.gateway.admit(key)
        except Refused as refused:
            await reject(request, refused)
            return
        except ClientFault as fault:
            self.gateway.note_refused(fault, request.peer)
            await reject(request, of_fault(fault))
            return
        with grant:
            subprotocol = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None
            websocket = await request.accept(
                nursery, subprotocol=subprotocol, ahead=self.gateway.read_ahead
            )
            await self._serve_admitted(websocket, settings, grant, request.peer)

    async def _serve_admitted(
        self, websocket: WebSocket, settings: RealtimeSettings, grant: Grant, peer: str
    ) -> None:
        gateway = self.gateway
        duration = min(gateway.limits.max_duration, grant.max_duration)
        expires_at = int(gateway.wall_clock() + duration)
        link = RealtimeLink(str(uuid.uuid4()), expires_at, self.names, settings)
        try:
            early = await self._settle(websocket, link)
            terms = gateway.terms(link.settle(), link.session_id, grant)
        except Refused as refused:
            fault = ClientFault(CloseCode.INVALID_INPUT, refused.text)
        except ClientFault as found:
            fault = found
        else:
            session = Session(
                terms, websocket, gateway.engines, gateway.metrics, link=link, early=early
            )
            await gateway.serve_session(session, grant.key_id, peer)
            return
        gateway.note_refused(fault, peer)
        await refuse(websocket, fault, link.refusal(fault))

    async def _settle(self, websocket: WebSocket, link: RealtimeLink) -> Sequence[str | bytes]:
        """What the client has sent that only a session can answer. Raises ClientFault."""
        draining = self.gateway.draining
        early: list[str | bytes] = []
        with trio.fail_after(SLOWEST_OPENING):
            await websocket.send(link.created())
            async with plain_nursery() as nursery:
                nursery.start_soon(_cancel_when, draining, nursery.cancel_scope)
                nursery.cancel_scope.deadline = trio.current_time() + SETTLE_SECONDS
                while (answer := link.configure(frame := await websocket.receive())) is not None:
                    await websocket.send(answer)
                early.append(frame)
                nursery.cancel_scope.cancel()
        if draining.is_set():
            raise ClientFault(CloseCode.GOING_AWAY, cause=EndCause.DRAINED)
        return early


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def reject(request: UpgradeRequest, error: ApiError) -> None:
    body = json.dumps(error.body()).encode()
    await request.reject(error.status, body, [(b"content-type", b"application/json")])


def asked_for(request: UpgradeRequest) -> tuple[str | None, RealtimeSettings]:
    """The credential, as ``Access.open_session`` takes it, and what the session is to begin with.
    Raises Refused: a client that wants to talk to a model would wait for its answers for ever."""
    _, query = split_target(request.path)
    values = {name: found[-1] for name, found in parse_qs(query).items()}
    settings = RealtimeSettings(transcription=Transcription(model=values.get("model")))
    key = credential(request)
    secret = ClientSecret.read(key or "")
    if values.get("intent", INTENT if secret and secret.session else None) != INTENT:
        raise Refused(f"This server transcribes: connect with ?intent={INTENT}", "invalid_intent")
    return (key, settings) if secret is None else (secret.token, secret.settings(settings))


def credential(request: UpgradeRequest) -> str | None:
    authorization = dict(request.headers).get(b"authorization")
    if authorization is not None:
        return bare(authorization.decode("latin-1"))
    for name in request.subprotocols:
        if name.startswith(KEY_IN_SUBPROTOCOL):
            return name.removeprefix(KEY_IN_SUBPROTOCOL)
    return None
