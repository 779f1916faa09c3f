"""Names of models: OpenAI's, the engines' and those of ``speech_model``."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from attrs import frozen

from ssasr.gateway.openai.errors import ApiError, invalid
from ssasr.gateway.openai.languages import LANGUAGES
from ssasr.protocol.speech_models import SPEECH_MODELS, Aliases, EngineKind, find_speech_model
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
        spoken = () if language is None else (language,)
        return MODEL_VERSIONS[self.engine(name, spoken, translate=translate)]

    def engine(
        self, name: str | None, languages: Collection[str] = (), *, translate: bool = False
    ) -> EngineKind:
        """Which engine serves the name, or no name at all; ``languages``: what may be spoken, if
        that is known. Raises ApiError; its ``param`` is ``model`` or ``language``."""
        spoken = {code.lower().partition("-")[0] for code in languages}
        if name is None or name.startswith(OPENAI):
            kind = self._best(english=spoken == {"en"} and not translate)
        else:
            kind = self._promised(name)
        if kind is EngineKind.ENGLISH and not spoken <= {"en"}:
            raise invalid("language", f"{self._called(name)} knows English only here")
        if kind is EngineKind.ENGLISH and translate:
            raise invalid("model", f"{self._called(name)} knows English only here")
        return kind

    def _best(self, *, english: bool) -> EngineKind:
        """OpenAI's names promise no engine: the English one serves where nothing but English is
        said to be spoken, otherwise the multilingual one, if there are both."""
        best = EngineKind.ENGLISH if english else EngineKind.MULTILINGUAL
        return best if best in self.kinds else self.kinds[0]

    def _promised(self, name: str) -> EngineKind:
        """Raises ApiError."""
        known = find_speech_model(name, self.aliases)
        kind = self._named.get(name) if known is None else known.engine
        if kind not in self.kinds:
            text = f"{self._called(name)} does not exist or is not served here"
            raise ApiError(404, "model_not_found", text, "model")
        return kind

    @staticmethod
    def _called(name: str | None) -> str:
        return "The model" if name is None else f"The model {name!r:.80}"
