"""From the model a client asks for to the engines that serve it."""

from attrs import frozen

from ssasr.protocol.faults import invalid_value
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.speech_models import EngineKind, Family

MODEL_VERSIONS = {EngineKind.ENGLISH: "en-default", EngineKind.MULTILINGUAL: "ml-default"}
"""Engine kind to the ``X-Model-Version`` that the load balancer routes by."""


@frozen
class Offer:
    """The engine kinds that a gateway has behind it."""

    kinds: tuple[EngineKind, ...]

    @property
    def versions(self) -> tuple[str, ...]:
        """The model versions of those."""
        return tuple(MODEL_VERSIONS[kind] for kind in self.kinds)

    def kind_for(self, parameters: SessionParameters) -> EngineKind:
        """Raises ClientFault 3006 when no engine here serves what is asked for: words in the wrong
        language would be worse than none. The names of family P promise no particular language, and
        some clients ask for one of them by default, so an English engine alone serves
        those, except where another language is asked for by name."""
        if parameters.engine in self.kinds:
            return parameters.engine
        asked_for = parameters.languages
        english_will_do = parameters.family is Family.P and (not asked_for or "en" in asked_for)
        if english_will_do and EngineKind.ENGLISH in self.kinds:
            return EngineKind.ENGLISH
        offered = ", ".join(kind.value for kind in self.kinds)
        raise invalid_value(
            "speech_model", f"{parameters.speech_model!r} is not served here (engines: {offered})"
        )
