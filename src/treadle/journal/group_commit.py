"""Group commit: one thread writes; all writes that arrive during a commit share the next one.

Passing a write to the thread and back costs several times as much CPU as the write itself, and
with `durability="power"` each commit waits for the disk. A busy event loop pays for both once a
group, not once a write; a lone write does not wait for others.
"""

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from treadle.clock import held
from treadle.errors import JournalClosed

W = TypeVar("W")

Commit = Callable[[Sequence[W]], Sequence[object]]
_Sent = Callable[[Sequence[object]], None]
_Job = tuple[Commit[W], Sequence[W], asyncio.AbstractEventLoop, _Sent]

MAX_GROUP = 512
"""The most writes in one transaction, so that the first does not wait for thousands of others."""


class GroupCommit(Generic[W]):
    """Passes the writes of one event loop, in order and in groups, to `commit` in a thread.

    `commit` returns one outcome for each write: a result, or an exception that the future of that
    write raises. `on_committed` is called after each group.
    """

    def __init__(
        self,
        commit: Commit[W],
        on_committed: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._on_committed = on_committed
        # A thread of its own: an executor makes two futures a group, each with a lock, and passes
        # through the event loop three times, which is most of what passing a group costs.
        self._jobs: SimpleQueue[_Job[W] | None] = SimpleQueue()
        Thread(target=_work, args=(self._jobs,), name="treadle-journal", daemon=True).start()
        # The thread knows the queue alone, so that it ends with a journal that is never closed.
        self._end = weakref.finalize(self, self._jobs.put, None)
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
        self._end()

    def _send(self) -> None:
        group = self._waiting[:MAX_GROUP]
        del self._waiting[:MAX_GROUP]
        writes = [write for write, _ in group]
        loop = asyncio.get_running_loop()
        time = held(loop)
        time.__enter__()  # until the outcomes are here
        self._jobs.put(
            (self._commit, writes, loop, lambda outcomes: self._sent(group, time, outcomes))
        )

    def _sent(
        self,
        group: list[tuple[W, asyncio.Future[object]]],
        time: AbstractContextManager[None],
        outcomes: Sequence[object],
    ) -> None:
        time.__exit__(None, None, None)
        for (_, done), outcome in zip(group, outcomes, strict=True):
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


def _work(jobs: "SimpleQueue[_Job[W] | None]") -> None:
    """Commits groups in a thread until there is a None."""
    while (job := jobs.get()) is not None:
        commit, writes, loop, sent = job
        try:
            outcomes = commit(writes)
        except BaseException as error:  # noqa: BLE001 - raised where the writes are awaited
            outcomes = [error] * len(writes)
        with suppress(RuntimeError):  # the event loop was closed, and with it all that waited
            loop.call_soon_threadsafe(sent, outcomes)
        del job, commit, writes, sent, outcomes  # they would be kept until there is another group
