"""An embedder without a model: it compares how texts are written, not what they mean."""

import asyncio
import math
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from zlib import crc32

from treadle.errors import ConfigurationError
from treadle.memory.archive.threads import THREADS
from treadle.memory.archive.words import pieces

_VERSION = 1
_GRAM = 3
_SHORT_WORD = 3
_SHORT_WEIGHT = 0.3
_FEW = 2000
"""How many characters are hashed at once, without a thread."""


class HashingEmbedder:
    """Hashes words, and the pieces of three characters in them, into vectors of a fixed size.

    It is lexical: texts are close where they share words or parts of words, such as `colour` and
    `colourful`, also with a slip of the pen. It knows nothing of meaning: `car` and `automobile`
    are strangers. Good for tests, for what must work without a network, and beside full text,
    which knows whole words only; for meaning use a trained model.
    """

    def __init__(self, dimensions: int = 384) -> None:
        if dimensions < 1:
            raise ConfigurationError("An embedder has at least one dimension.")
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """The name of the embedder, with its version and its size."""
        return f"hashing-{_VERSION}-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> "list[array[float]]":
        """Returns a vector for each text; many are made in a thread."""
        if sum(map(len, texts)) <= _FEW:
            return self._vectors(texts)
        return await asyncio.get_running_loop().run_in_executor(THREADS, self._vectors, texts)

    def _vectors(self, texts: Sequence[str]) -> "list[array[float]]":
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> "array[float]":
        counts: dict[str, int] = {}
        for word in pieces(text.lower()):
            counts[word] = counts.get(word, 0) + 1
        vector = array("f", bytes(4 * self._dimensions))
        for word, count in counts.items():
            factor = 1 + math.log(count)
            for place, weight in _features(word, self._dimensions):
                vector[place] += weight * factor
        return vector


@lru_cache(maxsize=1 << 15)
def _features(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    """Returns where a word stands in a vector, and how much; the sign keeps sums near zero."""
    return tuple(_placed(feature, weight, dimensions) for feature, weight in _parts(word))


def _parts(word: str) -> Iterator[tuple[str, float]]:
    # Short words are mostly those that every sentence has.
    weight = _SHORT_WEIGHT if word.isascii() and len(word) <= _SHORT_WORD else 1.0
    yield word, weight  # all of its pieces together weigh as much
    framed = f"<{word}>"
    number = len(framed) - _GRAM + 1
    for at in range(number):
        yield f"#{framed[at : at + _GRAM]}", weight / math.sqrt(number)


def _placed(feature: str, weight: float, dimensions: int) -> tuple[int, float]:
    code = crc32(feature.encode("utf-8", "replace"))
    # Two unlike remixes of one code: the place must say nothing of the sign.
    return (code * 2654435761 >> 7) % dimensions, weight if code & 1 else -weight
