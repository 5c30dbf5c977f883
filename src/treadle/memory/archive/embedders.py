"""Embedders turn texts into vectors: the protocol, plain functions, and hashing without a model."""

import asyncio
import inspect
import math
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable
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
from treadle.tools.failure import message_of, reraise_interrupt

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

T = TypeVar("T")

# Functions of other people may never return. They have threads of their own, so that a hanging
# embedder cannot keep the archive from opening or closing its files.
_EMBEDDER_THREADS = DaemonExecutor(4)
_OWN_THREADS = DaemonExecutor(4)

_HASHING_VERSION = 1
_GRAM = 3
_SHORT_WORD = 3
_SHORT_WEIGHT = 0.3
_FEW_CHARS = 2000
"""How many characters are hashed at once on the event loop; more are hashed in a thread."""

_HARMLESS = ["The weather is fine today."]
"""A text that every working embedder accepts."""

Vectors = Sequence[Sequence[float]]
"""One vector for each text, in the order of the texts. Rows of a numpy array are accepted."""

EmbedFunction = Callable[[list[str]], "Vectors | Awaitable[Vectors]"]
"""A function that takes texts and returns their vectors; it may be async."""


@runtime_checkable
class Embedder(Protocol):
    """Returns vectors that are close to each other for texts of similar meaning.

    Vectors of different embedders cannot be compared. When `name` or `dimensions` changes, the
    archive makes all its vectors again.
    """

    @property
    def name(self) -> str:
        """Identifies the vectors, for example by the name of the model."""
        ...

    @property
    def dimensions(self) -> int | None:
        """The length of each vector; None if it is known only from the first vector."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Returns a vector for each text; any exception is reported as `EmbeddingFailed`."""
        ...


class CallableEmbedder:
    """Makes an embedder of a function. A function that is not async is called in a thread.

    - `function`: takes a list of texts and returns their vectors.
    - `name`: by default the qualified name of the function.
    - `dimensions`: the length of the vectors, if it is known; vectors of another length are then
      refused from the first one on.

    Raises `ConfigurationError`.
    """

    def __init__(
        self, function: EmbedFunction, *, name: str = "", dimensions: int | None = None
    ) -> None:
        if not callable(function):
            raise ConfigurationError(
                f"{function!r:.100} cannot embed texts; pass a function of a list of texts."
            )
        if dimensions is not None:
            _require_positive(dimensions)
        self._function = function
        self._name = name or _name_of(function)
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """The name of the embedder."""
        return self._name

    @property
    def dimensions(self) -> int | None:
        """The length of each vector, if it is known."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Calls the function."""
        function = self._function
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not its presence
        ):
            vectors = function(list(texts))
        else:
            vectors = await in_embedder_thread(function, list(texts))
        # A lambda around an async function is a plain function that returns an awaitable.
        return await vectors if isinstance(vectors, Awaitable) else vectors


class HashingEmbedder:
    """Hashes words, and each three characters of a word, into vectors of a fixed length.

    The comparison is lexical. Texts are close if they share words or parts of words, such as
    `colour` and `colourful`, even if a word is misspelled. Synonyms such as `car` and `automobile`
    are not close. It suits tests, programs without a network, and searches that combine it with
    full text, which matches whole words only. Use a trained model to search by meaning.

    - `dimensions`: the length of the vectors.
    """

    def __init__(self, dimensions: int = 384) -> None:
        _require_positive(dimensions)
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """The name of the embedder, with its version and the length of its vectors."""
        return f"hashing-{_HASHING_VERSION}-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """The length of each vector."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> "list[array[float]]":
        """Returns a vector for each text; long texts are hashed in a thread."""
        if sum(map(len, texts)) <= _FEW_CHARS:
            return self._vectors(texts)
        return await in_thread(self._vectors, texts)

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


def as_embedder(embedder: Embedder | EmbedFunction | str) -> Embedder:
    """Returns an embedder unchanged, wraps a function, and makes the one that a string names.

    Raises `ConfigurationError` if `embedder` is neither, or if its name or its dimensions are not
    valid.
    """
    if isinstance(embedder, str):
        # Imported when it is needed: it knows the providers.
        return import_module("treadle.memory.archive.resolve_embedder").resolve_embedder(embedder)
    if callable(embedder) and not hasattr(embedder, "embed"):
        return CallableEmbedder(embedder)
    if not callable(getattr(embedder, "embed", None)):
        raise ConfigurationError(
            f"{embedder!r:.100} cannot embed texts; pass an Embedder, a string such as "
            "'openai:text-embedding-3-small', or a function of a list of texts."
        )
    name, size = getattr(embedder, "name", None), getattr(embedder, "dimensions", "missing")
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise ConfigurationError(
            f"The name of the embedder is {name!r:.100}; it must be a printable text that "
            "identifies its vectors."
        )
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ConfigurationError(
            f"The dimensions of the embedder {name} are {size!r:.100}; use a number of at least 1, "
            "or None if only the first vector shows it."
        )
    return embedder  # type: ignore[return-value]


async def embedded(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Returns the vectors of texts; raises only `EmbeddingFailed` and `EmbeddingInvalid`."""
    task = asyncio.current_task()
    try:
        vectors = await embedder.embed(texts)
        len(vectors)
    except (EmbeddingFailed, EmbeddingInvalid):
        raise
    except TypeError as error:
        raise EmbeddingInvalid(
            f"The embedder {embedder.name} did not return a list of vectors: {message_of(error)}."
        ) from error
    except BaseException as error:  # an embedder is foreign code, and may raise anything
        reraise_interrupt(error, task)
        # Only messages of our own errors are known to be free of keys.
        reason = error.message if isinstance(error, TreadleError) else f"{type(error).__name__}"
        raise EmbeddingFailed(f"The embedder {embedder.name} failed: {reason}") from error
    return vectors


async def embedded_or_refused(
    embed: "Callable[[Sequence[str]], Awaitable[list[Matrix]]]", texts: Sequence[str]
) -> "list[Matrix | None]":
    """Returns the vectors of texts, and None for each text that `embed` refuses on its own.

    One refused text must not hide the others from searches. Raises the error of `embed` if it may
    accept the texts later, or if it accepts no text at all.
    """
    try:
        return [*await embed(texts)]
    except (EmbeddingFailed, EmbeddingInvalid) as error:
        cause = error.__cause__
        if isinstance(cause, ModelError) and cause.retryable:
            raise
        # Separates an embedder that is down from one that refuses something in these texts.
        await embed(_HARMLESS)
    return await _embedded_in_halves(embed, texts)


async def in_embedder_thread(function: Callable[..., T], *args: object) -> T:
    """Calls a function of other people, which may never return, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_EMBEDDER_THREADS, function, *args)


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Calls a function of treadle, which returns soon, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_OWN_THREADS, function, *args)


def changed_size(embedder: str, size: int, before: int) -> EmbeddingInvalid:
    """Returns the error for an embedder whose vectors have changed their length."""
    return EmbeddingInvalid(
        f"The embedder {embedder} returned vectors of the size {size}, and before of {before}; an "
        "embedder that has changed needs another name."
    )


async def _embedded_in_halves(
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
            vectors += await _embedded_in_halves(embed, half)
    return vectors


def _require_positive(dimensions: int) -> None:
    if dimensions < 1:
        raise ConfigurationError(f"dimensions must be at least 1, not {dimensions}.")


def _name_of(function: EmbedFunction) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


@lru_cache(maxsize=1 << 15)
def _features(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    """Returns the places of a word in a vector, with a weight that is negative for half of them.

    With both signs, words that share a place by chance cancel out on average.
    """
    return tuple(_placed(feature, weight, dimensions) for feature, weight in _parts(word))


def _parts(word: str) -> Iterator[tuple[str, float]]:
    # Short words are mostly those that occur in every sentence.
    weight = _SHORT_WEIGHT if word.isascii() and len(word) <= _SHORT_WORD else 1.0
    yield word, weight  # all of its pieces together weigh as much
    framed = f"<{word}>"
    number = len(framed) - _GRAM + 1
    for at in range(number):
        yield f"#{framed[at : at + _GRAM]}", weight / math.sqrt(number)


def _placed(feature: str, weight: float, dimensions: int) -> tuple[int, float]:
    code = crc32(feature.encode("utf-8", "replace"))
    # The place and the sign come from different bits, so that they are independent.
    return (code * 2654435761 >> 7) % dimensions, weight if code & 1 else -weight
