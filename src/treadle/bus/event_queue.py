"""The queue of one subscriber: it never makes the sender wait, and its length is bounded."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from treadle.bus.blocks import Piece, place
from treadle.bus.position import block_in
from treadle.domain.envelope import Envelope
from treadle.domain.events import delta_in, text_key, with_delta


class QueueStatistics(NamedTuple):
    """How a queue is doing: entries that wait, deltas joined and overflows since it was made."""

    waiting: int
    joined: int
    overflows: int


class _Growth:
    """The deltas by which one text grew in a block; the strings alone are kept."""

    __slots__ = ("deltas", "first", "last")

    def __init__(self, envelope: Envelope, delta: str) -> None:
        self.first = envelope
        self.last = envelope.n
        self.deltas = [delta]

    def piece(self) -> Piece:
        event = self.first.event
        if len(self.deltas) > 1:
            event = with_delta(event, "".join(self.deltas))
        return Piece(event, self.first.n, self.last)


_Block = dict[object, _Growth]
"""Deltas with no other event between them, by text."""


class EventQueue:
    """The events that wait for one subscriber, in order; one task takes them.

    While fewer than `limit` wait, each is handed over as it was put. From then on, until the queue
    has been emptied, the deltas of a text are joined wherever they stand between two other events.
    A delta may pass deltas of other texts, whose order means nothing, but never another event. So
    at most `limit` events wait, or the events that are not deltas and, between two of them, one
    entry for each text that grew there.

    Where even that reaches `limit`, the overflow policy decides. With `drops_overflow` the queue is
    emptied and `is_lagging`: the subscriber reads what it missed elsewhere, and calls `resume`.
    Without, the queue grows: it is the only place that has the events.
    """

    def __init__(self, limit: int, *, drops_overflow: bool) -> None:
        self.is_lagging = False
        self.is_closed = False
        self.error: Exception | None = None
        self._limit = limit
        self._drops_overflow = drops_overflow
        self._entries: deque[Envelope | _Block] = deque()
        self._ready: deque[Envelope] | None = None  # the block that is being taken, never empty
        self._waiting = 0
        self._is_joining = False
        self._last: _Block | None = None  # the block at the end, which may still grow
        self._joined = self._overflows = 0
        self.on_lag: Callable[[], object] | None = None
        """Called with each event that is put while the queue lags."""
        self.wakeup: Callable[[None], object] | None = None
        """Called once, with the next event that is put; None while it is not waited for."""

    def __len__(self) -> int:
        """The number of entries that wait."""
        return self._waiting + len(self._ready or ())

    def statistics(self) -> QueueStatistics:
        """Returns how many entries wait, and what has been joined and dropped so far."""
        return QueueStatistics(len(self), self._joined, self._overflows)

    def put(self, envelope: Envelope, /) -> None:
        """Adds an event; never waits. Does nothing in a closed or lagging queue but to wake."""
        if not (self.is_lagging or self.is_closed):
            if self._is_joining:
                self._join(envelope)
            else:
                self._entries.append(envelope)
                self._waiting += 1
            if self._waiting >= self._limit:
                self._overflow()
        elif self.on_lag is not None:
            self.on_lag()
        if self.wakeup is not None:
            self.wake()

    def _overflow(self) -> None:
        if not self._is_joining:
            self._join_all()
        if self._waiting >= self._limit and self._drops_overflow:
            self._overflows += 1
            self.lag()

    def close(self, error: Exception | None = None, /) -> None:
        """Ends the queue after the events that wait, with `error` if it is given."""
        self.is_closed, self.error = True, error
        self.wake()

    def take(self) -> Envelope | None:
        """Removes and returns the next event; None if none waits."""
        if (ready := self._ready) is not None:
            envelope = ready.popleft()
            if not ready:
                self._ready = None
            return envelope
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if isinstance(entry, Envelope):
            self._waiting -= 1
        else:
            # The whole block leaves the queue, and later deltas begin another. Else a reader that
            # leaves would have to be told for each text separately how far it had come.
            self._waiting -= len(entry)
            if entry is self._last:
                self._last = None
            pieces = [growth.piece() for growth in entry.values()]
            ready = deque(place(pieces, *_start(entry)))
            entry = ready.popleft()
            self._ready = ready or None
        if not self._entries:
            self._is_joining = False
        return entry

    def lag(self) -> None:
        """Drops what waits, and what is put until `resume`."""
        self.is_lagging = True
        self._entries.clear()
        self._waiting, self._last, self._is_joining = 0, None, False

    def resume(self) -> None:
        """Accepts events again."""
        self.is_lagging = False

    async def wait(self) -> None:
        """Waits until something is put, or the queue is closed."""
        woken = asyncio.get_running_loop().create_future()
        self.wakeup = woken.set_result
        try:
            await woken
        finally:
            self.wakeup = None

    def wake(self) -> None:
        """Lets the one that waits look again."""
        # Forgotten at once, so that what is put before a task runs does not wake it again.
        wakeup, self.wakeup = self.wakeup, None
        if wakeup is not None:
            try:  # noqa: SIM105 - it is called with each event, and `suppress` costs as much
                wakeup(None)
            except asyncio.InvalidStateError:
                pass  # the task that waits is being cancelled

    def _join_all(self) -> None:
        waiting, self._entries = self._entries, deque()
        self._waiting, self._last, self._is_joining = 0, None, True
        for envelope in waiting:
            assert isinstance(envelope, Envelope)  # there are no blocks before it joins
            self._join(envelope)

    def _join(self, envelope: Envelope) -> None:
        delta = delta_in(envelope.event)
        # What another process has joined already stays as it is: its position is of that block.
        if delta is None or block_in(envelope.n) is not None:
            self._last = None
            self._entries.append(envelope)
            self._waiting += 1
            return
        if self._last is None:
            self._last = {}
            self._entries.append(self._last)
        key = text_key(envelope.event)
        growth = self._last.get(key)
        if growth is None:
            self._last[key] = _Growth(envelope, delta.delta)
            self._waiting += 1
        else:
            growth.deltas.append(delta.delta)
            growth.last = envelope.n
            self._joined += 1


def _start(block: _Block) -> tuple[int, int]:
    """Returns the position right before a block, of whose texts the first began it."""
    first = next(iter(block.values())).first
    return first.seq, first.n - 1
