"""Group commit: one thread writes; all writes that arrive during a commit share the next one.

Passing a write to the thread and back costs several times as much CPU as the write itself, and
with `durability="power"` each commit waits for the disk. A busy event loop pays for both once a
group, not once a write; a lone write does not wait for others.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from treadle.errors import JournalClosed

W = TypeVar("W")

MAX_GROUP = 512
"""The most writes in one transaction, so that the first does not wait for thousands of others."""


class GroupCommit(Generic[W]):
    """Passes the writes of one event loop, in order and in groups, to `commit` in a thread.

    `commit` returns one outcome for each write: a result, or an exception that the future of that
    write raises. `commit` itself must not raise. `on_committed` is called after each group.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[W]], Sequence[object]],
        on_committed: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._on_committed = on_committed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="treadle-journal")
        self._waiting: list[tuple[W, asyncio.Future[object]]] = []
        self._busy = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, write: W) -> asyncio.Future[object]:
        """Adds a write to the next group; the future is done when the group is committed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        if self._closed:
            done.set_exception(JournalClosed("The journal is closed; open the runtime again."))
            return done
        self._waiting.append((write, done))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Waits for two turns of the loop, because passing a group to the thread costs more than
            # writing it: tasks that become ready together (many threads get a chunk of a response
            # at once) write in this turn or, after one callback, in the next.
            loop.call_soon(loop.call_soon, self._send)
        return done

    async def close(self) -> None:
        """Waits for the writes already put, then ends the thread; a second call does nothing."""
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
                continue  # the caller was cancelled; the write stays committed
            if isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
        self._on_committed()
        if self._waiting:
            self._send()
        else:
            self._busy = False
            self._idle.set()
