"""A thread that is kept in a journal, as its one writer sees it.

An event changes the state at once and is shown once the journal has it. Only three
things wait for the journal: a tool before it starts, an entry before it is acknowledged, a result.

Each append costs several times as much as an event in it, so an append waits for company: it is
made as soon as something waits for it, one of those three or a delta that follows its events, and
otherwise `PATIENCE` seconds after its first event.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from treadle.bus.topic import Topic
from treadle.clock import now
from treadle.domain.envelope import Envelope, readable, recorded
from treadle.domain.events import (
    ContextCompacted,
    HistoryReplaced,
    LiveEvent,
    RecordedEvent,
    TerminalEvent,
    brings,
)
from treadle.domain.fold import apply
from treadle.domain.items import Item
from treadle.domain.spending import NO_SPENDING, spending_in
from treadle.domain.state import ThreadState
from treadle.errors import JournalError
from treadle.journal.base import Batch, Claim, Journal
from treadle.journal.projection import DueTime, project, standing_of

PATIENCE = 0.002
"""How long an event that nothing waits for may wait, in seconds."""


class JournaledThread:
    """Fulfils `ThreadWriter` with a journal and a topic.

    What is recorded in one turn of the event loop is appended together. `on_kept` is called with
    each event that is durable, after it was published; `on_failed` when the journal failed, and
    `on_due` with a time (Unix seconds) at which something is due from now on. `on_live`, if it is
    set, is called with each live event. A thread that is not `is_stored` is deleted when it is not
    used any more. `final` holds the states right after the terminal events of runs, until they are
    taken out.
    """

    def __init__(
        self,
        thread_id: str,
        state: ThreadState,
        claim: Claim,
        journal: Journal,
        topic: Topic,
        *,
        is_stored: bool,
        on_kept: Callable[[RecordedEvent], None],
        on_failed: Callable[[], None],
        on_due: Callable[[float], None],
    ) -> None:
        self.id = thread_id
        self.state = state
        self.claim = claim
        self.topic = topic
        self.on_live: Callable[[LiveEvent], None] | None = None
        self.failure: JournalError | None = None
        self.final: dict[str, ThreadState] = {}
        self._journal = journal
        self._on_kept = on_kept
        self._on_failed = on_failed
        self._on_due = on_due
        self._is_stored = is_stored
        self._standing = standing_of(state)
        self._unsent: list[Envelope] = []
        self._consumed: list[int] = []
        self._sending: asyncio.Handle | None = None
        self._is_urgent = False
        self._outbox: list[Envelope | LiveEvent] = []
        self._kept = self._sent = state.seq
        self._appends = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def is_settled(self) -> bool:
        """Whether all that was recorded is kept."""
        return not self._appends and self._sending is None

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event`, applies it, and shows it once the journal has it."""
        if self.failure is not None:
            raise self.failure
        event, encoded = readable(replace(event, seq=self.state.seq + 1, at=now()))
        self.state = apply(self.state, event)
        if isinstance(event, TerminalEvent):
            self.final[event.run_id] = self.state
        envelope = Envelope(event, event.seq, 0, encoded)
        self._unsent.append(envelope)
        self._outbox.append(envelope)
        if self._sending is None:
            loop = asyncio.get_running_loop()
            self._sending = loop.call_later(PATIENCE, self._send)

    def consume(self, number: int) -> None:
        """Takes an input out of the inbox, together with the events it became."""
        self._consumed.append(number)
        self._send_now()

    async def durable(self) -> None:
        """Waits until every event recorded so far is kept; raises `JournalError`.

        It also raises if the thread was lost meanwhile: what comes next is not to be done here.
        """
        if self.failure is not None:
            raise self.failure
        await self.kept()
        if self.failure is not None:
            raise self.failure

    async def kept(self) -> None:
        """Waits until every event recorded so far is kept; raises `JournalError` if it is not.

        An append that was under way when the thread was lost is waited for: whether it was kept
        decides whether its sender has to send again.
        """
        if self._kept >= self.state.seq:
            return
        if self.failure is not None:
            raise self.failure
        self._send_now()
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self.state.seq, kept))
        await kept

    def publish(self, event: LiveEvent, /) -> None:
        """Shows `event` after all that was recorded before it."""
        if self._outbox:
            self._outbox.append(event)
            self._send_now()
        else:
            self.topic.publish_live(event)
            if self.on_live is not None:
                self.on_live(event)

    async def event_of(self, item: Item) -> int:
        """Returns the number of the event that added `item`, else of the last with a copy of it."""
        await self.durable()
        added = copied = after = 0
        while events := await self._journal.read(self.id, after=after):
            for event in events:
                if brings(event, item):
                    if isinstance(event, HistoryReplaced | ContextCompacted):
                        copied = event.seq
                    else:
                        added = event.seq
            after = events[-1].seq
        return added or copied

    def fail(self, error: JournalError) -> None:
        """Ends the thread in this process: what was not kept did not happen.

        Appends that are under way may still be kept, and those that wait for them are told.
        """
        self.failure = error
        self._outbox.clear()
        self._refuse(error, after=self._sent)
        self._on_failed()

    def _refuse(self, error: JournalError, *, after: int) -> None:
        """Ends the wait for all events behind `after`, which are not kept."""
        waiters = self._waiters
        while waiters and waiters[-1][0] > after:
            _, waiter = waiters.pop()
            if not waiter.done():
                waiter.set_exception(error)

    def _send_now(self) -> None:
        """Appends what is recorded, at the end of this turn of the event loop."""
        if not self._is_urgent and (self._unsent or self._consumed):
            self._is_urgent = True
            if self._sending is not None:
                self._sending.cancel()
            self._sending = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending, self._is_urgent = None, False
        entries, self._unsent = self._unsent, []
        consumed, self._consumed = self._consumed, []
        if self.failure is not None:
            return
        projection = None
        spending = NO_SPENDING
        if entries:
            self._sent = entries[-1].seq
            events = recorded(entries)
            projection = project(
                events, self._standing, self.state, self.final, is_stored=self._is_stored
            )
            spending = spending_in(events)
            self._standing = standing_of(self.state)
        due = projection.due if projection is not None else ()
        self._appends += 1
        appended = self._journal.append(Batch(self.claim, entries, consumed, projection, spending))
        appended.add_done_callback(lambda appended: self._appended(entries, due, appended))

    def _appended(
        self, entries: list[Envelope], due: Sequence[DueTime], appended: asyncio.Future[None]
    ) -> None:
        self._appends -= 1
        if appended.cancelled():
            return  # the event loop ends
        error = appended.exception()
        if error is not None:
            typed = error if isinstance(error, JournalError) else JournalError(f"{error}")
            self._refuse(typed, after=self._kept)  # later appends are refused as well
            if self.failure is None:
                self.fail(typed)
            return
        if entries:
            self._kept = entries[-1].seq
            self._release()
            for one in due:
                if one.at is not None:
                    self._on_due(one.at)

    def _release(self) -> None:
        """Shows what is kept, and the live events behind it."""
        outbox, topic, kept = self._outbox, self.topic, self._kept
        shown = 0  # what is recorded or published meanwhile comes to the end of the list
        try:
            while shown < len(outbox):
                first = outbox[shown]
                if not isinstance(first, Envelope):
                    topic.publish_live(first)
                    if self.on_live is not None:
                        self.on_live(first)
                elif first.seq <= kept:
                    topic.publish(first)
                    self._on_kept(first.event)  # type: ignore[arg-type]
                else:
                    break
                shown += 1
        finally:
            del outbox[:shown]
        waiters = self._waiters
        while waiters and waiters[0][0] <= kept:
            _, waiter = waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
