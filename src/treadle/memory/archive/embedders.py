"""Embedders make vectors of texts: any function, and one that hashes words and needs no model."""

import asyncio
import inspect
import math
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from zlib import crc32

from treadle.errors import (
    ConfigurationError,
    EmbeddingFailed,
    EmbeddingInvalid,
    ModelError,
    TreadleError,
)
from treadle.executor import DaemonExecutor
from treadle.memory.archive.words import pieces

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

EMBEDDERS = DaemonExecutor(4)
"""For embedders that are plain functions: written by others, they may never return."""

THREADS = DaemonExecutor(4)
"""For what ends by itself: looking at what embedders return, opening and closing files."""

_VERSION = 1
_GRAM = 3
_SHORT_WORD = 3
_SHORT_WEIGHT = 0.3
_FEW = 2000
"""How many characters are hashed at once, without a thread."""

_PLAIN = ["The weather is fine today."]
"""A text that every embedder takes."""

Vectors = Sequence[Sequence[float]]
"""One vector for each text, in their order; rows of numpy will do."""

EmbedFunction = Callable[[list[str]], "Vectors | Awaitable[Vectors]"]
"""A function that takes texts and returns their vectors; it may be async."""


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors that are close to each other for texts that mean the same.

    Vectors of different embedders have nothing to do with each other: when the `name` or the
    number of `dimensions` changes, all vectors of the archive are made again. `dimensions` may be
    None where only the first vector tells.
    """

    @property
    def name(self) -> str:
        """What tells its vectors from those of others, such as the name of its model."""
        ...

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Returns a vector for each text; raises what it likes, which becomes `EmbeddingFailed`."""
        ...


class CallableEmbedder:
    """An embedder made of a function, async or plain; a plain one is called in a thread.

    `name` is by default that of the function. Give `dimensions` where it is known, so that vectors
    of another size are refused from the first one on.
    """

    def __init__(
        self, function: EmbedFunction, *, name: str = "", dimensions: int | None = None
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"{function!r} cannot embed; give a function of texts.")
        if dimensions is not None and dimensions < 1:
            raise ConfigurationError("An embedder has at least one dimension.")
        self._function = function
        self._name = name or _name_of(function)
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """The name of the embedder."""
        return self._name

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has, where that is known."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Calls the function."""
        function = self._function
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not its presence
        ):
            made = function(list(texts))
        else:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(EMBEDDERS, function, list(texts))
        return await made if isinstance(made, Awaitable) else made


def as_embedder(embedder: Embedder | EmbedFunction) -> Embedder:
    """Returns an embedder as it is, and a function as an embedder."""
    return embedder if isinstance(embedder, Embedder) else CallableEmbedder(embedder)


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


async def embedded(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Returns the vectors of texts; raises `EmbeddingFailed` and `EmbeddingInvalid` only."""
    try:
        vectors = await embedder.embed(texts)
        len(vectors)
    except (EmbeddingFailed, EmbeddingInvalid):
        raise
    except TypeError as error:
        raise EmbeddingInvalid(
            f"The embedder {embedder.name} returned no list of vectors: {error}."
        ) from error
    except Exception as error:  # an embedder is written by others, and may raise anything
        reason = error.message if isinstance(error, TreadleError) else f"{type(error).__name__}"
        raise EmbeddingFailed(f"The embedder {embedder.name} failed: {reason}") from error
    return vectors


async def vectors_apart(
    embed: "Callable[[Sequence[str]], Awaitable[list[Matrix]]]", texts: Sequence[str]
) -> "list[Matrix | None]":
    """Returns the vectors of texts, None for each that `embed` refuses also when it is alone.

    Such a text must not keep the others from being found. Raises what `embed` raises where it
    takes no other text either, or may take this one later.
    """
    try:
        return [*await embed(texts)]
    except (EmbeddingFailed, EmbeddingInvalid) as error:
        cause = error.__cause__
        if isinstance(cause, ModelError) and cause.retryable:
            raise
        await embed(_PLAIN)
    return await _halves(embed, texts)


async def _halves(
    embed: "Callable[[Sequence[str]], Awaitable[list[Matrix]]]", texts: Sequence[str]
) -> "list[Matrix | None]":
    if len(texts) == 1:
        return [None]
    middle = len(texts) // 2
    vectors: list[Matrix | None] = []
    for half in (texts[:middle], texts[middle:]):
        try:
            vectors += await embed(half)
        except (EmbeddingFailed, EmbeddingInvalid):
            vectors += await _halves(embed, half)
    return vectors


def _name_of(function: EmbedFunction) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


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
