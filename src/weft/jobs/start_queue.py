"""The start queue: nodes start in the order of their submission, as many at a time as allowed.

A node holds a place while its body runs. While the body waits for another node of the tree, or for
room in the queue, it gives its place away: otherwise a parent that waits for its children could
keep them from starting.
"""

import asyncio
from collections import deque
from collections.abc import Callable

BATCH = 256


class StartQueue:
    """Starts at most `limit` bodies at a time (None: any number), first in, first out.

    Starting happens in turns of the event loop of its own, at most 256 bodies a turn, so that
    neither a submission nor a crowd of them holds the loop up. `room` makes a submitter wait
    while `max_pending` nodes have not started.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, limit: int | None, max_pending: int
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._max_pending = max_pending
        self._pending: deque[Callable[[], bool]] = deque()
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._submitting: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self._is_due = False

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_limited(self) -> bool:
        """Whether places are counted at all."""
        return self._limit is not None

    @property
    def is_full(self) -> bool:
        """Whether a submitter has to wait for room."""
        return len(self._pending) >= self._max_pending

    def put(self, start: Callable[[], bool]) -> None:
        """Queues a start; `start` returns whether it took the place it was given."""
        self._pending.append(start)
        self._make_due()

    async def room(self) -> None:
        """Waits until fewer than `max_pending` nodes wait for their start."""
        while self.is_full:
            future = self._wait_in(self._submitting)
            try:
                await future
            except asyncio.CancelledError:
                if not future.cancelled():
                    self._make_due()  # the room it was given goes to another
                raise

    def give_back(self) -> None:
        """Frees the place of a body that has ended or waits."""
        self._taken -= 1
        if self._pending or self._resuming:
            self._make_due()

    async def regain(self) -> None:
        """Waits for a place, before all that has not started."""
        if self._has_place and not self._resuming:
            self._taken += 1
            return
        future = self._wait_in(self._resuming)
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.give_back()
            raise

    @property
    def _has_place(self) -> bool:
        return self._limit is None or self._taken < self._limit

    def _wait_in(self, queue: deque[asyncio.Future[None]]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        queue.append(future)
        return future

    def _make_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        places = BATCH if self._limit is None else min(BATCH, self._limit - self._taken)
        resumed = _wake(self._resuming, places)
        self._taken += resumed
        places -= resumed
        pending = self._pending
        while pending and places:
            if pending.popleft()():
                places -= 1
                self._taken += 1
        if self._submitting:
            _wake(self._submitting, self._max_pending - len(pending))
        if pending and self._has_place:
            self._make_due()


def _wake(queue: deque[asyncio.Future[None]], number: int) -> int:
    """Wakes up to `number` of those who still wait; returns how many."""
    woken = 0
    while queue and woken < number:
        future = queue.popleft()
        if not future.done():
            future.set_result(None)
            woken += 1
    return woken
