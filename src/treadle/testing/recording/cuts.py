"""Cuts a body into pieces: as recorded, of a fixed size, at random, or by a function; pure."""

import random
from collections.abc import Callable, Iterable, Iterator

from treadle.errors import TestingError

Cut = int | random.Random | Callable[[bytes], Iterable[bytes]]
"""How to cut a body: pieces of a number of bytes, of random sizes, or those of a function."""

_LONGEST_RANDOM = 64


def require_valid(cut: Cut | None) -> None:
    """Raises `TestingError` for a size below 1."""
    if isinstance(cut, int) and cut < 1:
        raise TestingError(f"chunk={cut} is too small; a chunk has at least 1 byte.")


def pieces(chunks: tuple[bytes, ...], cut: Cut | None) -> Iterator[bytes]:
    """Yields the body in pieces cut by `cut`; None keeps the recorded pieces."""
    if cut is None:
        return iter(chunks)
    body = b"".join(chunks)
    if isinstance(cut, int):
        return (body[at : at + cut] for at in range(0, len(body), cut))
    if isinstance(cut, random.Random):
        return _random_pieces(body, cut)
    return (piece for piece in cut(body) if piece)  # an empty piece would end the body


def _random_pieces(body: bytes, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = chance.randint(1, _LONGEST_RANDOM)
        yield body[at : at + size]
        at += size
