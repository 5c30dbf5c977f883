"""An awaitable that waits until a node has settled."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Settling:
    """Waits, when awaited, until a node has settled, and does not raise its error.

    The one that `Node.cancel` returns does not wait inside that node or below it: the waiting code
    is itself cancelled.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()
