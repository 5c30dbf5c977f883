"""The time of day, as the running event loop has it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def now() -> float:
    """Returns the time in Unix seconds.

    A loop with a method `wall_time` has a time of its own: that of `treadle.testing` jumps from
    timer to timer, and the time of day with it.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no loop runs in this thread
        return time.time()
    wall_time: Callable[[], float] | None = getattr(loop, "wall_time", None)
    return time.time() if wall_time is None else wall_time()


def held(loop: asyncio.AbstractEventLoop) -> AbstractContextManager[None]:
    """Returns a context in which time does not jump: for work in a thread that no executor has."""
    busy: Callable[[], AbstractContextManager[None]] | None = getattr(loop, "busy", None)
    return nullcontext() if busy is None else busy()
