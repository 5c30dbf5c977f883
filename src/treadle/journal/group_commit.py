"""Group commit: one thread that writes, and one transaction for whatever arrived meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from treadle.errors import JournalClosed

W = TypeVar("W")

MAX_GROUP = 512
"""Writes in one transaction, so that none waits for a thousand others."""


class GroupCommit(Generic[W]):
    """Hands the writes of one event loop, in order and in groups, to `commit` in its own thread.

    `commit` returns for each write what came of it; an exception among them is raised by the
    future of that write. It must not raise itself.
    """

    def __init__(self, commit: Callable[[Sequence[W]], Sequence[object]]) -> None:
        self._commit = commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="treadle-journal")
        self._waiting: list[tuple[W, asyncio.Future[object]]] = []
        self._busy = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, write: W) -> asyncio.Future[object]:
        """Adds a write to the next group."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        if self._closed:
            done.set_exception(JournalClosed("The journal is closed; open the runtime again."))
            return done
        self._waiting.append((write, done))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Whatever this turn of the loop writes, and the next, belongs to the same group:
            # handing a group over costs more than writing it.
            loop.call_soon(loop.call_soon, self._send)
        return done

    async def close(self) -> None:
        """Waits for what was put, then ends the thread; a second call does nothing."""
        self._closed = True
        await self._idle.wait()
        self._thread.shutdown(wait=False)

    def _send(self) -> None:
        group = self._waiting[:MAX_GROUP]
        del self._waiting[:MAX_GROUP]
        loop = asyncio.get_running_loop()
        writes = [write for write, _ in group]
        outcomes = loop.run_in_executor(self._thread, self._commit, writes)
        outcomes.add_done_callback(lambda outcomes: self._sent(group, outcomes))

    def _sent(
        self,
        group: list[tuple[W, asyncio.Future[object]]],
        outcomes: asyncio.Future[Sequence[object]],
    ) -> None:
        for (_, done), outcome in zip(group, outcomes.result(), strict=True):
            if done.done():
                continue  # the waiting task was cancelled; what was written stays written
            if isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
        if self._waiting:
            self._send()
        else:
            self._busy = False
            self._idle.set()
