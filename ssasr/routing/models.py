"""From the model a client asks for to the engines that serve it."""

from attrs import frozen

from ssasr.protocol.faults import ClientFault, invalid_value
from ssasr.protocol.speech_models import EngineKind

MODEL_VERSIONS = {EngineKind.ENGLISH: "en-default", EngineKind.MULTILINGUAL: "ml-default"}
"""Engine kind to the ``X-Model-Version`` that the load balancer routes by."""


@frozen
class Offer:
    """The engine kinds that a gateway has behind it."""

    kinds: tuple[EngineKind, ...]

    def version_for(self, kind: EngineKind, speech_model: str) -> str:
        """Raises ClientFault 3006 when no engine here serves ``kind``: words in the wrong language
        would be worse than none."""
        if kind not in self.kinds:
            raise self._not_offered(speech_model)
        return MODEL_VERSIONS[kind]

    def _not_offered(self, speech_model: str) -> ClientFault:
        offered = ", ".join(kind.value for kind in self.kinds)
        return invalid_value(
            "speech_model", f"{speech_model!r} is not served here (engines: {offered})"
        )
