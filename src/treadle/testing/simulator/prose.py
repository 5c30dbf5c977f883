"""Deterministic text of any length, in which losses and repetitions show.

Each word is numbered, and every second one has characters of two, three or four bytes in UTF-8.
"""

from functools import lru_cache

WORDS = ("river", "naïve", "stone", "café", "lamp", "北京", "thread", "🙂", "loom", "Привет")


@lru_cache(maxsize=64)
def prose(length: int) -> str:
    """Returns exactly `length` characters."""
    words: list[str] = []
    missing = length
    number = 0
    while missing > 0:
        word = f"{WORDS[number % len(WORDS)]}{number} "
        words.append(word)
        missing -= len(word)
        number += 1
    return "".join(words)[:length]
