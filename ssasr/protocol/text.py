"""What text alone says, for gateway and engines alike. Pure."""

CLOSERS = "\"'”’»)]}」』"
_TERMINALS = (".", "?", "!", "。", "？", "！", "।", "؟")


def ends_sentence(text: str) -> bool:
    """Whether the text ends as a finished sentence does. An ellipsis is the opposite."""
    text = text.rstrip(CLOSERS)
    return text.endswith(_TERMINALS) and not text.endswith("..")
