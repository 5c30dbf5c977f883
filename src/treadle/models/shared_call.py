"""Calls of functions that may block, such as those that ask a server for a token."""

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from treadle.executor import DaemonExecutor

T = TypeVar("T")

# A pool of their own: a function that hangs after its caller has given it up keeps its thread, and
# the default pool, with which tools, files and keys work, has only a few.
_THREADS = DaemonExecutor()


async def in_thread(function: Callable[[], T]) -> T:
    """Calls a function in a thread, with the context variables of the caller."""
    call = partial(contextvars.copy_context().run, function)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call)


class SharedCall(Generic[T]):
    """Calls a function in a thread, once for all that ask while it runs.

    Its result is not kept. A caller that is cancelled leaves the call to the others.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._calls: dict[asyncio.AbstractEventLoop, asyncio.Task[T]] = {}

    @property
    def is_running(self) -> bool:
        """Whether a call is under way on this event loop."""
        return asyncio.get_running_loop() in self._calls

    async def result(self) -> T:
        """Returns what the function returns, or raises what it raises."""
        loop = asyncio.get_running_loop()
        call = self._calls.get(loop)
        if call is None:
            call = asyncio.create_task(in_thread(self._function), name="treadle credentials")
            self._calls[loop] = call
            call.add_done_callback(lambda _: self._calls.pop(loop, None))
        return await asyncio.shield(call)
