"""Embedders: what makes a vector of a text."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from treadle.errors import ConfigurationError, EmbeddingFailed, EmbeddingInvalid, TreadleError
from treadle.memory.archive.threads import EMBEDDERS

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


def _name_of(function: EmbedFunction) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"
