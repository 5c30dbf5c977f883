"""Texts that an embedder refuses, told apart from those that it takes."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from treadle.errors import EmbeddingFailed, EmbeddingInvalid, ModelError

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

_PLAIN = ["The weather is fine today."]
"""A text that every embedder takes."""


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
