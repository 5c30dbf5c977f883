"""Reads a synchronous iterator from the event loop, in a thread of its own."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class ThreadIterator(AsyncIterator[T], Generic[T]):
    """The items of `items`, iterated in a thread that starts with the first request for an item.

    At most `limit` items wait for the reader; then the thread waits. Errors of the iterator are
    raised in the reader. `leave` ends it without waiting: `items` is closed in its thread, at its
    end or once its next item has arrived.
    """

    def __init__(self, items: Iterable[T], limit: int) -> None:
        self._items = items
        self._room = threading.Semaphore(limit)
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._started = self._ended = self._left = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup: asyncio.Future[None] | None = None

    async def __anext__(self) -> T:
        if not self._started:
            self._start()
        while not self._ready:
            if self._ended or self._left:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        item = self._ready.popleft()
        self._room.release()
        return item

    def leave(self) -> None:
        """Ends the reading; see the class."""
        self._left = True
        self._room.release()

    def _start(self) -> None:
        self._started = True
        self._loop = asyncio.get_running_loop()
        work = contextvars.copy_context().run
        threading.Thread(
            target=work, args=(self._work,), name="treadle chunks", daemon=True
        ).start()

    def _work(self) -> None:
        try:
            self._iterate()
        except BaseException as error:  # noqa: BLE001 - every error is raised in the reader
            self._error = error
        self._ended = True
        self._notify()

    def _iterate(self) -> None:
        try:
            iterator = iter(self._items)
            while self._room.acquire() and not self._left:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                self._ready.append(item)
                self._notify()
        finally:
            close = getattr(self._items, "close", None)
            if callable(close):
                close()

    def _notify(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            self._left = True  # the loop is closed, so nothing reads any more

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
