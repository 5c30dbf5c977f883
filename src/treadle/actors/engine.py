"""The port to engines: which node drives a thread, and when; and the engine inside a process.

All memory of progress is in the journal, none in the engine. So an engine only decides which
node drives a thread (`take`, `release`) and rings the bell (`wake`); at-least-once is enough.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from treadle.actors.permits import NO_LIMITS, LimitedNode, Permits, RunLimits
from treadle.errors import TreadleError
from treadle.logging import logger_of
from treadle.tools.failure import reraise_interrupt

_LOGGER = logger_of("treadle.engine")

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 30.0
"""A drive that failed is repeated after a random part of the first, then of twice as much, …"""


class Worker(Protocol):
    """A node as its engine sees it."""

    async def drive_thread(self, thread_id: str) -> None:
        """Works off what is to be done on a thread; returns when nothing is left.

        Raises why the thread could not be driven. The engine asks again, after a growing pause,
        unless it is an error of treadle that is not `retryable`.
        """
        ...

    def ring(self, thread_id: str) -> None:
        """Notes that entries may wait in the inbox of a thread that this node has; never waits."""
        ...

    def lose(self, thread_id: str) -> None:
        """Notes that another node may have a thread that this one had; never waits."""
        ...

    def node_ended(self) -> None:
        """Notes that another node has ended, whose due times may be noted nowhere; never waits."""
        ...

    def release_unused(self, thread_id: str) -> None:
        """Releases a thread that was taken for a caller that has left, unless it is in use."""
        ...

    def hand_over(self, thread_id: str) -> None:
        """Releases a thread on which nothing is under way, for another node; never waits."""
        ...


class Engine(Protocol):
    """Decides which node drives a thread, and asks that node to do so.

    A node that took a thread keeps it until it releases it: for its runs, its background jobs, its
    compaction and its sleep agent. At most one node has a thread at a time, as far as the engine
    can tell; the epoch of the journal is the fence for the moments in which it cannot.
    """

    @property
    def finds_work(self) -> bool:
        """Whether it finds the threads with something to do, and what waits in inboxes, by itself.

        Else the driver wakes them: when it starts, and each time it has looked at the inboxes.
        """
        ...

    async def start(self, worker: Worker) -> None:
        """Makes the engine ready to ask `worker`."""
        ...

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; a second call does nothing."""
        ...

    def drain(self) -> None:
        """Takes no more threads from now on, if nodes of other processes can; never waits."""
        ...

    async def leave(self) -> None:
        """Gives back what this node still has, after `stop`; a second call does nothing."""
        ...

    async def take(self, thread_id: str) -> bool:
        """Takes a thread for this node; returns False if another node has it, or should have it.

        May raise `ThreadNotFound` and `JournalError`.
        """
        ...

    async def seize(self, thread_id: str) -> bool:
        """Takes a thread even from a node that lives, whose drive of it then ends.

        Returns False if another node of this process has it, which cannot be made to end its drive.
        """
        ...

    def release(self, thread_id: str) -> None:
        """Gives a thread back, so that any node can take it."""
        ...

    def wake(self, thread_id: str) -> None:
        """Lets the node that has the thread, or one that can take it, drive it now or again."""
        ...

    async def permit(self, thread_id: str, owner: str) -> bool:
        """Returns whether a drive may work on a run of the thread now, within the limits of runs.

        Else the thread is driven again when it may. A permit is for one run: a drive asks again for
        the next one. It ends with the drive. May raise `JournalError`.
        """
        ...

    def is_driving(self, thread_id: str) -> bool:
        """Returns whether the thread is being driven by this node at this moment."""
        ...

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread by this node and waits for its end."""
        ...


class Drives:
    """The drives of one node: a task for each thread that is driven at this moment.

    A drive that failed is begun again after a growing pause, unless a retry cannot help. When a
    thread comes to be driven, `begun` is called, and when it is not driven any more, `ended`.
    """

    def __init__(
        self,
        jitter: Callable[[], float],
        ended: Callable[[str], None],
        begun: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._jitter = jitter
        self._on_begin = begun
        self._on_end = ended
        self._worker: Worker | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}  # drives that failed since the last that did not
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self.is_stopping = False

    def start(self, worker: Worker) -> None:
        """Lets `worker` be asked from now on."""
        self._worker = worker

    async def stop(self) -> Sequence[str]:
        """Interrupts all drives and waits for their end; returns the threads that were driven."""
        self.is_stopping = True
        for timer in self._retries.values():
            timer.cancel()
        interrupted = dict(self._tasks)
        for task in interrupted.values():
            task.cancel()
        if interrupted:
            await asyncio.wait(interrupted.values())
        return list(interrupted)

    def wake(self, thread_id: str) -> None:
        """Drives a thread now, or again after the drive that is under way."""
        if self._worker is None or self.is_stopping:
            return
        self._end_retry(thread_id)
        self._again.add(thread_id)
        if thread_id not in self._tasks:
            # Not in a task group, which would cancel all drives if one of them raised.
            task = asyncio.create_task(self._work(thread_id), name=f"treadle {thread_id}")
            self._tasks[thread_id] = task
            task.add_done_callback(lambda task: self._ended(thread_id, task))
            self._on_begin(thread_id)

    def __contains__(self, thread_id: str) -> bool:
        return thread_id in self._tasks

    def is_retried(self, thread_id: str) -> bool:
        """Whether the thread is driven, or waits for the repetition of a drive that failed."""
        return thread_id in self._tasks or thread_id in self._retries

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread and waits for its end."""
        task = self._tasks.get(thread_id)
        self._end_retry(thread_id)
        self._failures.pop(thread_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _work(self, thread_id: str) -> None:
        assert self._worker is not None
        task = asyncio.current_task()
        try:
            while thread_id in self._again:
                self._again.discard(thread_id)
                try:
                    await self._worker.drive_thread(thread_id)
                except TreadleError as error:
                    _LOGGER.warning("%s is not driven now: %s", thread_id, error.message)
                    self._failed(thread_id, is_retryable=error.retryable)
                except BaseException as error:
                    # A defect met in one thread must not end the others, nor the event loop, as
                    # `SystemExit` would.
                    reraise_interrupt(error, task)
                    _LOGGER.exception("%s is not driven now", thread_id)
                    self._failed(thread_id, is_retryable=True)
                else:
                    self._failures.pop(thread_id, None)
        finally:
            # In the turn in which the drive ends: a wake in the next one must begin another.
            self._again.discard(thread_id)
            del self._tasks[thread_id]
            self._on_end(thread_id)

    def _failed(self, thread_id: str, *, is_retryable: bool) -> None:
        """Lets the thread be driven again after a pause, even if it was woken meanwhile.

        Without the pause, a journal that can load a thread but not append to it would have the
        model asked again and again.
        """
        self._again.discard(thread_id)
        if not is_retryable or self.is_stopping:
            self._failures.pop(thread_id, None)
            return
        failures = self._failures[thread_id] = self._failures.get(thread_id, 0) + 1
        longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 16))
        self._end_retry(thread_id)
        self._retries[thread_id] = asyncio.get_running_loop().call_later(
            self._jitter() * longest, self.wake, thread_id
        )

    def _end_retry(self, thread_id: str) -> None:
        timer = self._retries.pop(thread_id, None)
        if timer is not None:
            timer.cancel()

    def _ended(self, thread_id: str, task: asyncio.Task[None]) -> None:
        """Forgets a drive that was cancelled before its first step, so that it never ran."""
        if not task.cancelled():
            task.exception()  # only `KeyboardInterrupt`, which has ended the event loop
        if self._tasks.get(thread_id) is task:
            self._again.discard(thread_id)
            del self._tasks[thread_id]
            self._on_end(thread_id)


class _Group:
    """The engines of one process on one journal: which of them has which thread."""

    def __init__(self) -> None:
        self.engines: list[EmbeddedEngine] = []
        self.taken: dict[str, EmbeddedEngine] = {}
        self.permits = Permits()


_groups: WeakKeyDictionary[object, _Group] = WeakKeyDictionary()


class EmbeddedEngine:
    """Fulfils `Engine` with tasks of one event loop; idle threads cost nothing.

    Runtimes on the same `journal` object divide its threads among them, and when one stops, another
    takes its threads over; another process is kept away by the journal (see `DriverLock`).
    """

    finds_work = False

    def __init__(
        self,
        journal: object,
        limits: RunLimits = NO_LIMITS,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._limits = LimitedNode(limits, self.wake)
        self._group = _groups.setdefault(journal, _Group())
        self._drives = Drives(jitter, self._drive_ended)
        self._refused: set[str] = set()  # threads whose drives end without a permit

    async def start(self, worker: Worker) -> None:
        """Makes the engine ready to ask `worker`."""
        self._drives.start(worker)
        self._group.engines.append(self)

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; a second call does nothing."""
        interrupted = await self._drives.stop()
        if self in self._group.engines:
            self._group.engines.remove(self)
        self._group.permits.leave(self._limits)
        for thread_id in interrupted:
            if thread_id not in self._group.taken:
                self.wake(thread_id)  # it was interrupted before it could take the thread

    def drain(self) -> None:
        """Does nothing: entries are accepted here until the end."""

    async def leave(self) -> None:
        """Does nothing: what this engine had was given back."""

    async def take(self, thread_id: str) -> bool:
        """Takes a thread unless another runtime of this process has it."""
        return self._group.taken.setdefault(thread_id, self) is self

    async def seize(self, thread_id: str) -> bool:
        """Takes a thread unless another runtime of this process has it."""
        return await self.take(thread_id)

    def release(self, thread_id: str) -> None:
        """Gives a thread back; when this engine has stopped, another one looks what is left."""
        group = self._group
        if group.taken.get(thread_id) is self:
            del group.taken[thread_id]
            if self._drives.is_stopping:
                self.wake(thread_id)

    def wake(self, thread_id: str) -> None:
        """Lets the thread be driven now, or again after the drive that is under way."""
        group = self._group
        engine = group.taken.get(thread_id, self)
        if self._drives.is_stopping and thread_id not in group.taken:
            # Others may be stopping at the same time, and would not hear it.
            running = (one for one in group.engines if not one._drives.is_stopping)
            engine = next(running, self)
        if engine is not self:
            engine.wake(thread_id)
        else:
            self._drives.wake(thread_id)

    async def permit(self, thread_id: str, owner: str) -> bool:
        """Returns whether a drive may work on a run of the thread now."""
        node = self._limits
        if not node.limits.are_set or self._group.permits.ask(thread_id, owner, node):
            self._refused.discard(thread_id)
            return True
        self._refused.add(thread_id)
        return False

    def _drive_ended(self, thread_id: str) -> None:
        """Ends the permit of a thread, unless its drive has ended because it waits for one."""
        if thread_id in self._refused:
            self._refused.discard(thread_id)
        else:
            self._group.permits.end(thread_id)

    def is_driving(self, thread_id: str) -> bool:
        """Returns whether the thread is being driven."""
        return thread_id in self._drives

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread and waits for its end."""
        await self._drives.interrupt(thread_id)
