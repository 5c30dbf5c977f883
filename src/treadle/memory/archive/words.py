"""Prepares texts for the full-text index, and queries so that no text is syntax; pure.

SQLite's tokenizer splits words at spaces and punctuation only. Scripts that are written without
spaces are therefore indexed by single characters, and searched by pairs of adjacent characters.
Symbols such as emoji are indexed and searched one by one. See https://sqlite.org/fts5.html

PostgreSQL is given the words themselves (`counted`, `lexemes`), because what its parser takes for a
word depends on the locale of the database.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

MAX_TERMS = 64
"""How many different words of a query are searched."""

TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* Co So'"

_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
_SYMBOLS = "\u2190-\u2bff\U0001f000-\U0001faff"


class _Patterns(NamedTuple):
    alone: re.Pattern[str]
    breaks: re.Pattern[str]
    part: re.Pattern[str]
    unspaced: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    """Returns the patterns; they take 10 ms to compile, which only a search has to pay."""
    return _Patterns(
        alone=re.compile(f"[{_UNSPACED}{_SYMBOLS}]"),
        breaks=re.compile(
            r"[\s\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf"
            r"\u2000-\u206f\u3000-\u3004\u3008-\u303f]+"
        ),
        part=re.compile(f"[{_UNSPACED}]+|[{_SYMBOLS}]|[^{_UNSPACED}{_SYMBOLS}]+"),
        unspaced=re.compile(f"[{_UNSPACED}]"),
    )


def indexed(text: str) -> str:
    """Returns `text` for the index, with spaces around each character that is indexed alone."""
    return text if text.isascii() else _patterns().alone.sub(r" \g<0> ", text)


def terms(query: str) -> list[str]:
    """Returns the first `MAX_TERMS` different terms of a query.

    Each term is a quoted phrase, because FTS5 would read unquoted words such as OR as operators.
    Returns nothing for a query without letters, digits and symbols.
    """
    found: dict[str, None] = {}
    for phrase in pieces(query):
        found[f'"{phrase.lower()}"'] = None
        if len(found) == MAX_TERMS:
            break
    return list(found)


def pieces(text: str) -> Iterator[str]:
    """Returns the words of a text, and pairs of characters of scripts without spaces."""
    patterns = _patterns()
    for piece in patterns.breaks.split(text):
        for part in patterns.part.findall(piece):
            if len(part) > 1 and patterns.unspaced.match(part):
                yield from (f"{a} {b}" for a, b in pairwise(part))
            elif any(character.isalnum() for character in part) or patterns.alone.match(part):
                yield part


MAX_LEXEME = 64
"""The longest lexeme; of longer words the beginning is indexed, and searched."""

MAX_OFTEN = 16
"""How often a lexeme of a text is counted at most; BM25 hardly tells more apart."""

MAX_BYTES = 1_000_000
"""How much the different lexemes of a text may take: a tsvector has at most 1 MiB."""

_BYTES = 4 + 2 * MAX_OFTEN


def counted(text: str) -> Counter[str]:
    """Returns the lexemes of a text, before they are stemmed, and how often each of them occurs.

    Of a text with more than `MAX_BYTES` of different ones, that is the beginning.
    """
    counts: Counter[str] = Counter()
    left = MAX_BYTES
    for lexeme in _lexemes(text.lower(), singles=True):
        if lexeme not in counts:
            left -= len(lexeme.encode()) + _BYTES
            if left < 0:
                break
        counts[lexeme] += 1
    return counts


def length_of(counts: Counter[str]) -> int:
    """Returns the number of words of a text with these lexemes: pairs of characters are none."""
    unspaced = _patterns().unspaced
    return sum(
        count
        for word, count in counts.items()
        if word.isascii() or len(word) == 1 or not unspaced.match(word)
    )


def lexemes(query: str) -> list[str]:
    """Returns the first `MAX_TERMS` different lexemes of a query, before they are stemmed."""
    found: dict[str, None] = {}
    for lexeme in _lexemes(query.lower(), singles=False):
        found[lexeme] = None
        if len(found) == MAX_TERMS:
            break
    return list(found)


def _lexemes(text: str, *, singles: bool) -> Iterator[str]:
    """Returns words without accents, symbols, and pairs of characters of scripts without spaces.

    With `singles`, also each character of such a pair.
    """
    patterns = _patterns()
    for piece in patterns.breaks.split(text):
        for part in patterns.part.findall(piece):
            if patterns.unspaced.match(part):
                if singles or len(part) == 1:
                    yield from part
                yield from (a + b for a, b in pairwise(part))
            elif part.isascii() or patterns.alone.match(part):
                yield part[:MAX_LEXEME]
            else:
                folded = "".join(map(_folded, unicodedata.normalize("NFC", part)))
                yield from (word[:MAX_LEXEME] for word in folded.split())


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    """Returns a Latin letter without its accents, a space for what separates words."""
    if "\u0300" <= character <= "\u036f":
        return ""
    base = unicodedata.normalize("NFD", character)[0]
    if base.isascii():
        return base
    # The kinds of SQLite's `TOKENIZER`, and marks, which are part of the words of some scripts.
    kind = unicodedata.category(character)
    return character if kind[0] in "LNM" or kind in {"Co", "So"} else " "
