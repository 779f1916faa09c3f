"""The values of ``speech_model``: which wire behaviour each promises and which engine serves it."""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen


class Family(enum.Enum):
    """How turns look on the wire. U: word by word, a word once final stays. P: driven by pauses,
    revised until the end."""

    U = "U"
    P = "P"


class EngineKind(enum.Enum):
    """Which engine a session needs."""

    ENGLISH = "english"
    MULTILINGUAL = "multilingual"


@frozen
class SpeechModel:
    """``always_formatted``: text is formatted as it is produced, whatever ``format_turns`` says."""

    name: str
    family: Family
    engine: EngineKind
    always_formatted: bool


def _table() -> Mapping[str, SpeechModel]:
    u, p = Family.U, Family.P
    english, multilingual = EngineKind.ENGLISH, EngineKind.MULTILINGUAL
    models = (
        SpeechModel("universal-streaming-english", u, english, False),
        SpeechModel("universal-streaming-multilingual", u, multilingual, True),
        SpeechModel("whisper-rt", u, multilingual, False),
        SpeechModel("u3-rt-pro", p, multilingual, True),
        SpeechModel("u3-rt-pro-beta-1", p, multilingual, True),
        SpeechModel("universal-3-5-pro", p, multilingual, True),
        SpeechModel("universal-3-6-pro", p, multilingual, True),
        SpeechModel("universal-3-6", p, multilingual, True),
        SpeechModel("u3-pro", p, multilingual, True),
    )
    return MappingProxyType({model.name: model for model in models})


SPEECH_MODELS: Mapping[str, SpeechModel] = _table()
DEFAULT_SPEECH_MODEL = "universal-streaming-english"
