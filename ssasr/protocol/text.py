"""Rules about text that the gateway, engines and clients share. Pure."""

CLOSERS = "\"'”’»)]}」』"
_TERMINALS = (".", "?", "!", "。", "？", "！", "।", "؟")


def ends_sentence(text: str) -> bool:
    """Whether the text ends with sentence-final punctuation; an ellipsis is none."""
    text = text.rstrip(CLOSERS)
    return text.endswith(_TERMINALS) and not text.endswith("..")
