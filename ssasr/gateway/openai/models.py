"""Names of models: OpenAI's, the engines' and those of ``speech_model``."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from ssasr.gateway.openai.errors import ApiError, invalid
from ssasr.gateway.openai.languages import LANGUAGES
from ssasr.protocol.speech_models import SPEECH_MODELS, Aliases, EngineKind
from ssasr.routing.models import MODEL_VERSIONS

LISTED = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize")
OPENAI = ("gpt-", "whisper-")
"""How names begin that promise no engine."""
DIARIZING = "gpt-4o-transcribe-diarize"


@frozen
class ModelNames:
    """``kinds``: the engines behind this gateway."""

    kinds: tuple[EngineKind, ...]
    aliases: Aliases = MappingProxyType({})

    @property
    def served(self) -> list[str]:
        """Every name that is."""
        named = [name for name, kind in self._named.items() if kind in self.kinds]
        return sorted({*LISTED, *named})

    @property
    def _named(self) -> Mapping[str, EngineKind]:
        """Those that promise an engine."""
        every = {kind.value: kind for kind in EngineKind}
        every |= {name: model.engine for name, model in SPEECH_MODELS.items()}
        return every | {alias: every[name] for alias, name in self.aliases.items() if name in every}

    def version_for(self, name: str, language: str | None, *, translate: bool) -> str:
        """What the load balancer routes by. Raises ApiError."""
        if language is not None and language not in LANGUAGES:
            raise invalid("language", f"{language!r} is no ISO 639 code of a language known here")
        kind = self._kind_for(name, language, translate=translate)
        if kind not in self.kinds:
            text = f"The model {name!r} does not exist or is not served here"
            raise ApiError(404, "model_not_found", text, "model")
        if kind is EngineKind.ENGLISH and language not in (None, "en"):
            raise invalid("language", f"The model {name!r} knows English only here")
        if kind is EngineKind.ENGLISH and translate:
            raise invalid("model", f"The model {name!r} knows English only here")
        return MODEL_VERSIONS[kind]

    def _kind_for(self, name: str, language: str | None, *, translate: bool) -> EngineKind | None:
        """One of OpenAI's names is served by the English engine where English is said to be spoken,
        otherwise by the multilingual one, if there are both."""
        if not name.startswith(OPENAI):
            return self._named.get(name)
        english = language == "en" and not translate
        best = EngineKind.ENGLISH if english else EngineKind.MULTILINGUAL
        return best if best in self.kinds else self.kinds[0]
