"""Which characters a client that asks for Chinese wants, by the region or script in its code."""

from collections.abc import Iterable

SIMPLIFIED, TRADITIONAL, TAIWAN, HONG_KONG = "zh-Hans", "zh-Hant", "zh-TW", "zh-HK"
_WRITTEN = {
    "hans": SIMPLIFIED, "cn": SIMPLIFIED, "sg": SIMPLIFIED, "my": SIMPLIFIED,
    "hant": TRADITIONAL, "tw": TAIWAN, "hk": HONG_KONG, "mo": HONG_KONG,
}  # fmt: skip


def written_chinese(codes: Iterable[str]) -> str | None:
    """Of the first code that is Chinese: one of the four above, Simplified where it says nothing;
    None where no code is Chinese, and then the text stays as the model writes it."""
    for code in codes:
        language, *subtags = code.lower().replace("_", "-").split("-")
        if language in ("zh", "yue"):
            # A region says more than a script: zh-Hant-HK.
            known = [_WRITTEN[subtag] for subtag in subtags if subtag in _WRITTEN]
            return known[-1] if known else HONG_KONG if language == "yue" else SIMPLIFIED
    return None
