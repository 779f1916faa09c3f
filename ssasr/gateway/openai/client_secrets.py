"""``POST /v1/realtime/client_secrets``: what a browser opens a session with instead of a key.

A secret is ``ek_`` and a temporary token (``auth.tokens``), which opens one session; behind it
stand the settings that the session is to begin with. They are not signed: whoever has the secret
may change the settings anyway.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable

import trio
from attrs import frozen
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssasr.gateway.auth.access import Access
from ssasr.gateway.auth.tokens import LONGEST_SESSION, TokenRequest
from ssasr.gateway.openai.errors import of_fault
from ssasr.gateway.openai.json_object import JsonObject, Refused
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime_settings import RealtimeSettings
from ssasr.protocol.faults import ClientFault

PATH = "/v1/realtime/client_secrets"
MARK = "ek_"
SHORTEST, LONGEST, USUAL = 10, 7_200, 600
"""Seconds within which a secret opens a session."""
MOST_SETTINGS = 4_096
"""Bytes: a secret travels in a header, of which a proxy on the way may take no more than 8 KiB."""
MOST_BODY = 64 * 1024
BODY_SECONDS = 30.0


@frozen
class ClientSecret:
    """``session``: what the session begins with, as the client wrote it."""

    token: str
    session: dict[str, object]

    def text(self) -> str:
        if not self.session:
            return MARK + self.token
        written = json.dumps(self.session, separators=(",", ":")).encode()
        return f"{MARK}{self.token}.{base64.urlsafe_b64encode(written).rstrip(b'=').decode()}"

    @classmethod
    def read(cls, text: str) -> "ClientSecret | None":
        """None: the text is something else. Raises Refused."""
        if not text.startswith(MARK):
            return None
        version, payload, signature, *rest = [*text.removeprefix(MARK).split("."), "", ""]
        token = f"{version}.{payload}.{signature}"
        if not rest or not rest[0]:
            return cls(token, {})
        try:
            padded = rest[0] + "=" * (-len(rest[0]) % 4)
            return cls(token, JsonObject.read(base64.urlsafe_b64decode(padded)).fields)
        except (binascii.Error, ValueError):
            raise Refused("The client secret is damaged", "invalid_client_secret") from None

    def settings(self, settings: RealtimeSettings) -> RealtimeSettings:
        """Raises Refused."""
        return settings.updated(JsonObject(self.session, "session"))


@frozen(eq=False)
class ClientSecrets:
    """The endpoint."""

    access: Access
    names: ModelNames
    wall_clock: Callable[[], float] = time.time

    @property
    def route(self) -> Route:
        return Route(PATH, self.answer, methods=["POST"])

    async def answer(self, request: Request) -> Response:
        authorization = request.headers.get("authorization")
        try:
            issued = self.issue(authorization, JsonObject.read(await read_body(request) or b"{}"))
        except ClientFault as fault:
            return of_fault(fault).response()
        except Refused as refused:
            return refused.response()
        return JSONResponse(issued, headers={"cache-control": "no-store"})

    def issue(self, authorization: str | None, asked: JsonObject) -> dict[str, object]:
        """Raises ClientFault where there is no key, Refused."""
        expiry = asked.inner("expires_after") or JsonObject({})
        expiry.text("anchor", ("created_at",))
        seconds = expiry.integer("seconds", SHORTEST, LONGEST) or USUAL
        session = asked.inner("session") or JsonObject({}, "session")
        settings = RealtimeSettings().updated(session)
        settings.parameters(settings.transcription.engine(self.names))
        if len(json.dumps(session.fields)) > MOST_SETTINGS:
            raise session.refused("audio", f"less than {MOST_SETTINGS} bytes of settings")
        now = self.wall_clock()
        token = self.access.issue_token(authorization, TokenRequest(seconds, LONGEST_SESSION), now)
        return {
            "value": ClientSecret(token, session.fields).text(),
            "expires_at": int(now + seconds),
            "session": settings.shown() | {"id": f"sess_{token[-12:]}"},
        }


async def read_body(request: Request) -> bytes:
    """Raises Refused."""
    body = b""
    try:
        with trio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY:
                    raise Refused(f"The body has more than {MOST_BODY} bytes", "body_too_large")
    except (trio.TooSlowError, ClientDisconnect):
        raise Refused("The body did not come", "body_incomplete") from None
    return body
