"""Cuts a body into pieces: as recorded, of a size, of random sizes, or as a function says; pure."""

import random
from collections.abc import Callable, Iterable, Iterator

from treadle.errors import TestingError

Cut = int | random.Random | Callable[[bytes], Iterable[bytes]]
"""How to cut a body: pieces of so many bytes, of random sizes, or those a function returns."""

_LONGEST_RANDOM = 64


def require_valid(cut: Cut | None) -> None:
    """Raises `TestingError` for a size that no piece can have."""
    if isinstance(cut, int) and cut < 1:
        raise TestingError(f"A chunk has at least 1 byte, not {cut}.")


def pieces(chunks: tuple[bytes, ...], cut: Cut | None) -> Iterator[bytes]:
    """Yields the body anew, in pieces as `cut` says; None leaves it as it was recorded."""
    if cut is None:
        return iter(chunks)
    body = b"".join(chunks)
    if isinstance(cut, int):
        return (body[at : at + cut] for at in range(0, len(body), cut))
    if isinstance(cut, random.Random):
        return _random_pieces(body, cut)
    return (piece for piece in cut(body) if piece)  # an empty one would be the end of the body


def _random_pieces(body: bytes, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = chance.randint(1, _LONGEST_RANDOM)
        yield body[at : at + size]
        at += size
