"""What a gateway has besides recognition, and the companions of a session that asks for some of it:
redaction, webhooks, an LLM."""

from typing import Protocol

from attrs import define

from ssasr.gateway.llm import LlmGateway
from ssasr.gateway.webhooks import Webhooks
from ssasr.protocol.faults import ClientFault, invalid_value
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.speech_models import EngineKind
from ssasr.session.companion import Companion


class Redactors(Protocol):
    """What a gateway has that was started with ``--redaction`` (``redaction.service``)."""

    def redactor(self, parameters: SessionParameters, engine: EngineKind) -> Companion: ...

    def detected(self) -> dict[str, dict[str, float | None]]: ...


@define(eq=False)
class Features:
    """None for each that this server was started without."""

    redaction: Redactors | None = None
    webhooks: Webhooks | None = None
    llm: LlmGateway | None = None

    def companions(
        self, parameters: SessionParameters, session_id: str, engine: EngineKind
    ) -> tuple[Companion, ...]:
        """Those of a session that ``engine`` serves, redaction first: the others get only what it
        lets through. Raises ClientFault for a feature that is not there."""
        found: list[Companion] = []
        if parameters.redaction is not None:
            if self.redaction is None:
                raise _missing("redact_pii", "--redaction")
            found.append(self.redaction.redactor(parameters, engine))
        if parameters.webhook is not None:
            if self.webhooks is None:
                raise _missing("webhook_url", "--webhook-hosts")
            found.append(self.webhooks.companion(session_id, parameters.webhook))
        if parameters.llm is not None:
            if self.llm is None:
                raise _missing("llm_gateway", "--llm-gateway-url")
            found.append(self.llm.companion(parameters.llm))
        return tuple(found)


def _missing(parameter: str, option: str) -> ClientFault:
    return invalid_value(parameter, f"this server was started without {option}")
