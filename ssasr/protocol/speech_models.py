"""The values of ``speech_model``: which wire behaviour each promises and which engine serves it."""

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType

from attrs import evolve, frozen


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
        SpeechModel("assemblyai-stt-3-7-realtime", p, multilingual, True),
        SpeechModel("assemblyai-stt-3-7-realtime-agent", p, multilingual, True),
    )
    return MappingProxyType({model.name: model for model in models})


SPEECH_MODELS: Mapping[str, SpeechModel] = _table()
DEFAULT_SPEECH_MODEL = "universal-streaming-english"
_NEWEST = "assemblyai-stt-3-7-realtime-agent"
_VENDORS = re.compile(r"(universal-3|u3|assemblyai-stt-)[a-z0-9._-]{0,48}")
Aliases = Mapping[str, str]
"""Names of the operator's own, each with a name of ``SPEECH_MODELS`` that it stands for."""


def find_speech_model(name: str, aliases: Aliases) -> SpeechModel | None:
    """A name that looks like the vendor's next is taken for what its last ones were: its clients
    ask for it as soon as they are updated, wherever the server is. None: the name is nobody's."""
    known = SPEECH_MODELS.get(aliases.get(name, name))
    if known is None and _VENDORS.fullmatch(name):
        return evolve(SPEECH_MODELS[_NEWEST], name=name)
    return known
