"""The start queue: nodes start in the order of their submission, as many at a time as allowed.

A node holds a place while its body runs. While the body waits for another node of the tree, or for
room in the queue, others may run in its place: otherwise a parent that waits for its children could
keep them from starting.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable
from typing import Protocol

BATCH = 256
SHARE = 8


class Startable(Protocol):
    """A node that is started in its turn.

    If it is cancelled before its turn, the caller of the cancellation calls `withdraw`.
    """

    def _node_start(self) -> bool:
        """Starts it; returns False if nothing was left to start."""
        ...

    def _node_is_pending(self) -> bool:
        """Whether it still waits for its start."""
        ...


class StartQueue:
    """Starts at most `limit` bodies at a time (None: any number), first in, first out.

    Starting happens in turns of the event loop of its own, at most 256 bodies a turn, so that
    neither one submission nor many at once block the loop. `room` makes a submitter wait
    while `max_pending` nodes have not started.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, limit: int | None, max_pending: int
    ) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._limit = limit
        self._max_pending = max_pending
        self._pending: deque[Startable] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._submitting: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self._withdrawn = 0  # of those pending: they take no room
        self._is_due = False

    @property
    def is_full(self) -> bool:
        """Whether a submitter has to wait for room."""
        return len(self._pending) - self._withdrawn >= self._max_pending

    def put(self, node: Startable) -> None:
        """Queues a node for its start."""
        self._pending.append(node)
        self._make_due()

    def withdraw(self) -> None:
        """Counts one that is queued, or about to be, as not to be started any more."""
        self._withdrawn += 1
        if self._withdrawn >= BATCH and 2 * self._withdrawn > len(self._pending):
            # Not at each: it looks at all of them.
            left = [node for node in self._pending if node._node_is_pending()]  # type: ignore[reportPrivateUsage]
            self._withdrawn -= len(self._pending) - len(left)
            self._pending.clear()
            self._pending.extend(left)
        self._make_due()

    def place(self) -> "Place | None":
        """Returns the place of a body that is being started; None where they are not counted."""
        if self._limit is None:
            return None
        self._taken += 1
        return Place(self)

    async def room(self) -> None:
        """Waits until fewer than `max_pending` nodes wait for their start."""
        while self.is_full:
            future = self._wait_in(self._submitting)
            try:
                await future
            except asyncio.CancelledError:
                self._make_due()  # the room it may have been given goes to another
                raise

    def give_back(self) -> None:
        """Frees a place."""
        self._taken -= 1
        self._make_due()

    async def regain(self, *, at_once: bool) -> None:
        """Takes a place again, before all that has not started.

        It waits for a free one, unless `at_once`; a cancellation ends the waiting, and the place
        is taken as well.
        """
        if not at_once and (self._returning or not self._has_free):
            future = self._wait_in(self._returning)
            try:
                await future
            except asyncio.CancelledError:
                if future.cancelled():
                    self._taken += 1
                raise
        else:
            self._taken += 1

    @property
    def _has_free(self) -> bool:
        return self._limit is None or self._taken < self._limit

    def _wait_in(self, queue: deque[asyncio.Future[None]]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        queue.append(future)
        return future

    def _make_due(self) -> None:
        if not self._is_due and (self._pending or self._returning or self._submitting):
            self._is_due = True
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._is_due = False
        if self._limit is not None:
            self._taken += _wake(self._returning, self._limit - self._taken)
        pending = self._pending
        started = 0
        while pending and started < BATCH and self._has_free:
            if pending.popleft()._node_start():  # type: ignore[reportPrivateUsage]
                started += 1
            else:
                self._withdrawn -= 1
        if self._submitting and not self.is_full:
            # Few at a time, because each may have many to submit and would only wait again.
            _wake(
                self._submitting, 1 + (self._max_pending - len(pending) + self._withdrawn) // SHARE
            )
        if (pending and self._has_free) or (self._submitting and not self.is_full):
            self._make_due()


class Place:
    """The place of one body; others may run in it while the body waits.

    A body may wait for several at once, in tasks of its own: it needs its place again when the last
    of them continues.
    """

    __slots__ = ("_is_over", "_queue", "_waits")

    def __init__(self, queue: StartQueue) -> None:
        self._queue = queue
        self._waits = 0
        self._is_over = False

    def end(self) -> None:
        """Frees it for good: the body has ended."""
        self._is_over = True
        if not self._waits:
            self._queue.give_back()

    async def lend(self, awaited: Awaitable[object]) -> None:
        """Waits for `awaited`, and then for the place.

        An interrupted body continues at once, to clean up or after a timeout.
        """
        if not self._waits and not self._is_over:
            self._queue.give_back()
        self._waits += 1
        try:
            await awaited
        except BaseException:
            await self._come_back(at_once=True)
            raise
        await self._come_back(at_once=False)

    async def _come_back(self, *, at_once: bool) -> None:
        is_last = self._waits == 1 and not self._is_over
        try:
            if is_last:
                await self._queue.regain(at_once=at_once)
        finally:
            self._waits -= 1
            if is_last and (self._waits or self._is_over):
                self._queue.give_back()  # meanwhile it began to wait again, or ended


def _wake(queue: deque[asyncio.Future[None]], number: int) -> int:
    """Wakes up to `number` futures that are still waited for; returns how many."""
    woken = 0
    while queue and woken < number:
        future = queue.popleft()
        if not future.done():
            future.set_result(None)
            woken += 1
    return woken
