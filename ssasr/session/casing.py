"""How a turn begins: with a capital, unless it goes on with the sentence of the turn before. Pure.

Models write each turn as if there were nothing before it, now with a small letter, now with a
capital, whatever they wrote at the end of the last one. That one was sent and stands; so what it
ended with decides: after the end of a sentence a capital, and else the model's own letter, small in
words that nobody writes with a capital within a sentence.

Whether the speaker had finished his sentence is not known when a turn ends: neither the end-of-turn
confidence nor the silence nor the words tell (``benchmarks/archive/whisper_streaming.md``), so the
model's full stop stays. In a file the next words are there before the last ones are sent, and a
small letter says that the sentence went on.
"""

from ssasr.protocol.text import ends_sentence

LONGEST_GAP = 3_000
"""Milliseconds of silence after which nobody goes on with a sentence."""
LONG_WORD = 7
"""Letters of a word that nobody takes for an abbreviation."""
_FUNCTION_WORDS = """
    a an the and or but nor so yet for of to in on at by with from into onto as if when while
    because although though that which who whom whose than then there here he she they we you it his
    her its their our your my him them us me this these those is was were are be been being am has
    had have having do does did not no will would shall should can could may might must until before
    after between under over through without upon about against
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def sentence_continues(last_word: str, silence: int) -> bool:
    """Whether what is said after so many milliseconds belongs to the sentence of that word."""
    return bool(last_word) and silence < LONGEST_GAP and not ends_sentence(last_word)


def is_stray_full_stop(last_word: str, next_word: str, silence: int) -> bool:
    """Whether the full stop of the last word is one in mid-sentence, by the word that the model
    wrote after so many milliseconds."""
    ended = last_word.endswith(".") and ends_sentence(last_word)
    return ended and silence < LONGEST_GAP and next_word.islower()


def first_word(word: str, *, continues: bool) -> str:
    """The first word of a turn."""
    if continues:
        bare = word.rstrip(",;:")
        small = bare.istitle() and bare.lower() in FUNCTION_WORDS
        return word[0].lower() + word[1:] if small else word
    at = next((at for at, letter in enumerate(word) if letter.isalnum()), None)
    if at is None or word[at:] != word[at:].lower():
        return word  # a number, a capital, or one of a kind: iPhone, d'Artagnan
    capital = word[at].title()
    return word[:at] + capital + word[at + 1 :] if len(capital) == 1 else word


def lower_capitals(words: list[str]) -> list[str]:
    """The words of a whole turn; those of one all in capitals as a sentence has them."""
    text = " ".join(words)
    capitals = text.isupper() and (
        len(words) > 3 or any(sum(map(str.isalpha, word)) >= LONG_WORD for word in words)
    )
    return [word.lower() for word in words] if capitals else words
