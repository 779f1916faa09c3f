"""``llm_gateway``: each turn that has ended goes to a chat endpoint of the operator's, as the
client's messages say, and the answer to the client (``LLMGatewayResponse``). Off unless the
operator names the endpoint (``--llm-gateway-url``); the client chooses the model and the words,
never the address.

A companion of the session does it: a turn passes on at once and waits for its request in a queue of
its own, so a slow LLM holds up no turn. One request a session is under way, which keeps the answers
in order. What has no answer says so in ``llm_status_code``: 503, too many turns waited; 504, the
endpoint took too long; 502, it cannot be reached, or what it says is no answer.
"""

import json
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.net.http_client import Answer, RequestFailed, Target, post
from ssasr.protocol import strict_json
from ssasr.protocol.integrations import LlmRequest
from ssasr.protocol.messages import LLMGatewayResponse, SessionMessage, Termination, Turn
from ssasr.runtime.handoff import Outlet
from ssasr.session.companion import Companion

CHAT = "/chat/completions"
DEADLINE = 30.0
"""Seconds for an answer."""
MOST_WAITING = 8
"""Turns of one session."""
LAST_ANSWERS = 2.0
"""Seconds that the end of a session waits for them: clients wait 5 s for Termination."""
LONGEST_DATA = 256 << 10
"""Characters of an answer: a client's message has 1 MiB at most."""
TOO_MANY, TOO_LATE, NO_ANSWER = 503, 504, 502


def _ignore(_: str) -> None:
    pass


@frozen(eq=False)
class LlmGateway:
    """``on_answer``: called with what became of each turn."""

    target: Target
    key: str | None = field(default=None, repr=False)
    seconds: float = DEADLINE
    on_answer: Callable[[str], None] = _ignore

    @classmethod
    def parse(cls, url: str, key: str | None = None) -> "LlmGateway":
        """The endpoint's address, or that of the API it belongs to. Raises StartRefused."""
        try:
            base = url if url.endswith(CHAT) else url.rstrip("/") + CHAT
            return cls(Target.parse(base), key)
        except ValueError:
            raise StartRefused(f"{url!r} is not the address of a chat endpoint") from None

    def companion(self, request: LlmRequest) -> "TurnAnswers":
        return TurnAnswers(self, request)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """``data`` of the response, whatever became of it."""
        started = time.monotonic_ns()
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            body = json.dumps(request).encode()
            answer = await post(self.target, headers, body, seconds=self.seconds)
        except RequestFailed as failed:
            late = isinstance(failed.__cause__, trio.TooSlowError)
            data = without_answer(request, TOO_LATE if late else NO_ANSWER)
        else:
            data = read_answer(request, answer)
        data["response_time"] = time.monotonic_ns() - started
        return data


def without_answer(request: dict[str, Any], status: int) -> dict[str, Any]:
    return {
        "request_id": str(uuid.uuid4()),
        "choices": [],
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        "request": request,
        "response_time": 0,
        "llm_status_code": status,
    }


def read_answer(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """What an OpenAI-compatible endpoint says, in the hosted service's names."""
    if not 200 <= answer.status < 300:
        return without_answer(request, answer.status)
    try:
        said: Any = strict_json.read(answer.body.decode())
        choices = [_choice(index, each) for index, each in enumerate(said["choices"])]
        usage = said.get("usage") or {}
        counts = [int(usage.get(f"{of}_tokens") or 0) for of in ("prompt", "completion", "total")]
        json.dumps(choices, allow_nan=False)  # a number may be one that JSON cannot hold
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return without_answer(request, NO_ANSWER)
    if len(answer.body) > LONGEST_DATA:
        return without_answer(request, NO_ANSWER)
    data = without_answer(request, answer.status)
    names = ("input_tokens", "output_tokens", "total_tokens")
    return data | {"choices": choices, "usage": dict(zip(names, counts, strict=True))}


def _choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    shown = {"role": message.get("role", "assistant"), "content": message.get("content")}
    if message.get("tool_calls"):
        shown["tool_calls"] = message["tool_calls"]
    finish = choice.get("finish_reason")
    return {"index": choice.get("index", index), "message": shown, "finish_reason": finish}


@define(eq=False)
class TurnAnswers(Companion):
    """One session's."""

    gateway: LlmGateway
    request: LlmRequest
    _waiting: deque[Turn] = field(factory=deque)
    _dropped: deque[Turn] = field(factory=deque)
    """Those that found the queue full, and are answered without having been asked."""
    _wake: trio.Event = field(factory=trio.Event)
    _idle: trio.Event = field(factory=trio.Event)
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def __call__(self, message: SessionMessage) -> SessionMessage:
        if isinstance(message, Turn) and message.end_of_turn:
            full = len(self._waiting) >= MOST_WAITING
            (self._dropped if full else self._waiting).append(message)
            self._idle = trio.Event()
            self._wake.set()
        elif isinstance(message, Termination):
            if self._waiting or self._dropped:
                with trio.move_on_after(LAST_ANSWERS):
                    await self._idle.wait()
            self._scope.cancel()  # nothing may follow
        return message

    async def run(self, messages: Outlet[SessionMessage]) -> None:
        with self._scope:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._waiting:
                    turn = self._waiting[0]
                    await self._answer(turn, messages, await self.gateway.ask(self._asked(turn)))
                    self._waiting.popleft()
                    while self._dropped:
                        turn = self._dropped.popleft()
                        data = without_answer(self._asked(turn), TOO_MANY)
                        await self._answer(turn, messages, data)
                self._idle.set()

    async def _answer(
        self, turn: Turn, messages: Outlet[SessionMessage], data: dict[str, Any]
    ) -> None:
        self.gateway.on_answer("answered" if data["choices"] else "failed")
        await messages.send(LLMGatewayResponse(turn.turn_order, turn.transcript, data))

    def _asked(self, turn: Turn) -> dict[str, Any]:
        return {
            "model": self.request.model,
            "messages": [
                {"role": role, "content": content.replace("{{turn}}", turn.transcript)}
                for role, content in self.request.messages
            ],
            "max_tokens": self.request.max_tokens,
        }
