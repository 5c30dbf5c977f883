"""Calls plain functions of users in threads, so that the event loop continues."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from treadle.executor import DaemonExecutor
from treadle.logging import logger_of

T = TypeVar("T")

_LOGGER = logger_of("treadle.tools")

PATIENCE_SECONDS = 1.0
"""How long a function waits for a thread before the pool grows."""

START_SECONDS = 60.0
"""How long a function waits for a thread while the pool cannot grow."""

_THREADS = DaemonExecutor()


class NeverStarted(Exception):
    """A function was not called, because no thread became free in time; the text says so."""


class Start:
    """Decides between a thread that begins to call a function and a caller that gives it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_refused = False
        self.has_begun = False

    def begin(self) -> bool:
        """Returns whether the function is to be called."""
        with self._lock:
            self.has_begun = not self._is_refused
            return self.has_begun

    def refuse(self) -> bool:
        """Keeps the function from being called; returns False if it has begun."""
        with self._lock:
            self._is_refused = not self.has_begun
            return self._is_refused


async def in_thread(
    function: Callable[[], T], *, start: Start | None = None, threads: DaemonExecutor = _THREADS
) -> T:
    """Calls a function in a thread, with the context variables of the caller.

    A function that waits for a thread makes the pool grow, up to its bound; `NeverStarted` is
    raised if none becomes free in `START_SECONDS`. If the caller is cancelled, a function that has
    begun is left behind and no longer counts, one that has not never begins.
    """
    begun = start or Start()
    context = contextvars.copy_context()

    def call() -> T:
        if not begun.begin():
            raise NeverStarted("it was given up before it started")
        return context.run(function)

    called = asyncio.get_running_loop().run_in_executor(threads, call)
    if threads.is_full:
        await _started(called, begun, threads)
    return await called


async def _started(called: "asyncio.Future[T]", begun: Start, threads: DaemonExecutor) -> None:
    """Waits until the function has begun; raises `NeverStarted`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + START_SECONDS
    try:
        while not called.done() and not begun.has_begun:
            await asyncio.wait([called], timeout=PATIENCE_SECONDS)
            if called.done() or begun.has_begun or threads.grow():
                continue
            if loop.time() >= end and begun.refuse():
                called.cancel()
                problem = (
                    f"it never started: all {threads.size} threads for plain functions were busy "
                    f"for {START_SECONDS:g} s, {threads.left_behind} of them with calls that were "
                    "given up and did not end"
                )
                _LOGGER.error("A plain function was not called: %s.", problem)
                raise NeverStarted(problem)
    except asyncio.CancelledError:
        called.cancel()
        raise
