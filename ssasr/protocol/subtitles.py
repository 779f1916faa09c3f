"""SubRip and WebVTT. Pure."""

from collections.abc import Iterable

Cue = tuple[int, int, str]
"""Start and end in milliseconds, and what is shown: a line or several."""


def srt(cues: Iterable[Cue]) -> str:
    """SubRip."""
    blocks = [
        f"{number}\n{_timestamp(start, ',')} --> {_timestamp(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT; texts are ``escaped``, but for their tags."""
    blocks = [
        f"\n{_timestamp(start, '.')} --> {_timestamp(end, '.')}\n{text}\n"
        for start, end, text in cues
    ]
    return "WEBVTT\n" + "".join(blocks)


def escaped(text: str) -> str:
    """Without what WebVTT takes for its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(ms: int, mark: str) -> str:
    seconds, ms = divmod(ms, 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{ms:03}"
