"""What a gateway that redacts has: the process that detects, and a redactor for each session."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from attrs import frozen

from ssasr.gateway.redaction.policies import LANGUAGES, POLICIES
from ssasr.gateway.redaction.process import detector_process
from ssasr.gateway.redaction.turns import Find, TurnRedactor
from ssasr.protocol.faults import invalid_value
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.speech_models import EngineKind


def policies_for(parameters: SessionParameters, engine: EngineKind) -> frozenset[str]:
    """What is to be hidden. Raises ClientFault if any of it cannot be detected here, in any of the
    languages that may be spoken: never less than was asked for. ``engine``: the one that serves."""
    assert parameters.redaction is not None, "only for sessions that ask"
    spoken = ("en",) if engine is EngineKind.ENGLISH else parameters.languages
    if not spoken or not set(spoken) <= LANGUAGES.keys():
        there = ", ".join(sorted(LANGUAGES))
        raise invalid_value(
            "redact_pii", f"set language_codes to what can be redacted here: {there}"
        )
    detected = frozenset.intersection(*[LANGUAGES[language] for language in spoken])
    asked = parameters.redaction.policies
    for policy in asked:
        if policy not in POLICIES:
            raise invalid_value("redact_pii_policies", f"there is no policy {policy!r}")
        if policy not in detected:
            there = ", ".join(sorted(detected))
            raise invalid_value(
                "redact_pii_policies", f"{policy} cannot be detected here; there is: {there}"
            )
    return frozenset(asked) or detected


@frozen
class Redaction:
    """``find``: of the process that detects. ``measured``: with the model that its recall was
    measured with."""

    find: Find
    measured: bool = True

    def detected(self) -> dict[str, dict[str, float | None]]:
        """For ``GET /v1/status``: see ``detected_policies``."""
        return detected_policies(measured=self.measured)

    def redactor(self, parameters: SessionParameters, engine: EngineKind) -> TurnRedactor:
        """For one session, which ``engine`` serves. Raises ClientFault."""
        assert parameters.redaction is not None, "only for sessions that ask"
        policies = policies_for(parameters, engine)
        return TurnRedactor(
            self.find,
            policies,
            parameters.redaction.substitution,
            parameters.always_formatted,
            keep_turns=parameters.speaker_labels,
        )


@asynccontextmanager
async def redaction(model: Path | None, *, measured: bool) -> AsyncIterator[Redaction | None]:
    """``model``: the folder of a model of names; None: this gateway does not redact. ``measured``:
    it is the catalogue's. Raises StartRefused."""
    if model is None:
        yield None
        return
    async with detector_process(model) as detector:
        yield Redaction(detector.find, measured)


MEASURED_MODEL = "en-core-web-sm"
"""Of names, in the catalogue."""


def detected_policies(*, measured: bool) -> dict[str, dict[str, float | None]]:
    """By language and policy, the recall that was measured on text without recognition errors
    (``benchmarks.redaction``); None where it was not, as everywhere with another model."""
    text = resources.files("ssasr").joinpath("data/redaction.json").read_text("utf-8")
    recall = json.loads(text) if measured else {}
    return {
        language: {policy: recall.get(language, {}).get(policy) for policy in sorted(policies)}
        for language, policies in LANGUAGES.items()
    }
