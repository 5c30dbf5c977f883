"""Settling: what waits until a node has settled."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Settling:
    """Awaited, it waits until a node has settled, whatever came of it.

    What `cancel` of a node returns does not wait inside of that node or below it: the code that
    would wait is part of what was cancelled.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()
