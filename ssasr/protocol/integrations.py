"""What a session asks to be sent elsewhere than to its client: ``webhook_url`` and ``llm_gateway``.
Whether anything goes there is for the gateway to say."""

import re

from attrs import field, frozen

from ssasr.protocol.faults import invalid_value
from ssasr.protocol.query import Query

LLM_ROLES = ("system", "developer", "user", "assistant")
TURN_PLACE = "{{turn}}"
LONGEST_MODEL, MOST_TOKENS = 200, 100_000
MOST_PLACES = 16
"""How often a request may repeat the turn: the client is sent it again with the answer, and a turn
may be long."""
OUR_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "expect", "te",
     "trailer", "upgrade"}
)  # fmt: skip
"""What the request itself is made with; in lower case."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@frozen
class Webhook:
    """Where the ends of turns go when the session has ended. ``header``: a name and a value that go
    with them."""

    url: str
    header: tuple[str, str] | None = field(default=None, repr=False)


@frozen
class LlmRequest:
    """What is asked of the LLM after each turn. ``messages``: roles and contents, in at least one
    of which ``{{turn}}`` stands for what was said."""

    model: str
    messages: tuple[tuple[str, str], ...] = field(repr=False)
    max_tokens: int


def read_webhook(values: Query) -> Webhook | None:
    """Raises ClientFault 3006."""
    url = values.text("webhook_url")
    names = ("webhook_auth_header_name", "webhook_auth_header_value")
    name, value = [values.text(each) for each in names]
    if not url:
        if name or value:
            raise invalid_value(names[not name], "it needs webhook_url")
        return None
    if bool(name) != bool(value):
        raise invalid_value(names[bool(name)], "the header needs both a name and a value")
    if not name or not value:
        return Webhook(url)
    if not _HEADER_NAME.fullmatch(name) or name.lower() in OUR_HEADERS:
        raise invalid_value(names[0], "expected the name of a header of your own")
    if not (value.isascii() and value.isprintable()):
        raise invalid_value(names[1], "expected printable ASCII")
    return Webhook(url, (name, value.strip()))


def read_llm(values: Query) -> LlmRequest | None:
    """Raises ClientFault 3006."""
    name = "llm_gateway"
    given = values.fields(name)
    if given is None:
        return None
    model, most, listed = (given.get(each) for each in ("model", "max_tokens", "messages"))
    if not isinstance(model, str) or not 0 < len(model) <= LONGEST_MODEL:
        raise invalid_value(name, f"model: expected a name of {LONGEST_MODEL} characters at most")
    if type(most) is not int or not 0 < most <= MOST_TOKENS:
        raise invalid_value(name, f"max_tokens: expected an integer between 1 and {MOST_TOKENS}")
    messages = tuple(map(_llm_message, listed)) if isinstance(listed, list) else ()
    places = sum(content.count(TURN_PLACE) for _, content in messages)
    if not 0 < places <= MOST_PLACES:
        raise invalid_value(
            name, f"messages: expected an array of them, with {TURN_PLACE} 1 to {MOST_PLACES} times"
        )
    return LlmRequest(model, messages, most)


def _llm_message(message: object) -> tuple[str, str]:
    fields = message if isinstance(message, dict) else {}
    role, content = fields.get("role"), fields.get("content")
    if role not in LLM_ROLES or not isinstance(content, str):
        raise invalid_value(
            "llm_gateway", f"messages: each has a role ({', '.join(LLM_ROLES)}) and a content"
        )
    return role, content
