"""A journal in memory, for tests and for programs that keep nothing after they end."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace as changed

from treadle.domain.accept import identity_of
from treadle.domain.cursor import cursor, key_at
from treadle.domain.desk import DeskEvent, ThreadCreated, ThreadDeleted, owner_mark
from treadle.domain.entries import AnswerEntry, Entry, KeyedEntry, SendEntry
from treadle.domain.envelope import Envelope, recorded
from treadle.domain.events import RecordedEvent, ToolCallRequested
from treadle.domain.fold import apply
from treadle.domain.history import History, HistoryUnread, UnreadHistory
from treadle.domain.metadata import updated
from treadle.domain.page import Page
from treadle.domain.spending import Spending, slot_of
from treadle.domain.state import ACTIVE, RunStatus, ThreadState
from treadle.errors import JournalClosed, JournalError, StaleWriter
from treadle.journal.base import (
    Batch,
    CallQuery,
    ChangeQuery,
    Changes,
    Claim,
    Direction,
    Due,
    DuePlace,
    Fork,
    ThreadInfo,
    ThreadMark,
    ThreadOrder,
    ThreadQuery,
    Unfinished,
    Waiting,
    WaitingCall,
    deletions_of,
    not_found,
    position_at,
    promised,
    stale,
    waiting_call,
)
from treadle.journal.files import NewFile
from treadle.journal.labels import labels_of
from treadle.journal.memory_files import MemoryFiles
from treadle.journal.projection import (
    OPEN_STATUSES,
    CallRecord,
    DueKind,
    DueTime,
    Projection,
    RunRecord,
    Sent,
    merged,
    place_of,
)
from treadle.journal.pulse import IN_PROCESS, SCANNED, Pulse


@dataclass
class _Kept:
    """A thread and everything that belongs to it."""

    number: int
    info: ThreadInfo
    epoch: int = 0
    events: list[RecordedEvent] = field(default_factory=list[RecordedEvent])
    status: RunStatus | None = None
    jobs: int = 0
    runs: dict[str, RunRecord] = field(default_factory=dict[str, RunRecord])
    keys: dict[str, Sent] = field(default_factory=dict[str, Sent])
    calls: dict[str, CallRecord] = field(default_factory=dict[str, CallRecord])
    inbox: dict[int, Entry] = field(default_factory=dict[int, Entry])
    snapshot: ThreadState = field(default_factory=ThreadState)
    due: dict[tuple[DueKind, str], DueTime] = field(
        default_factory=dict[tuple[DueKind, str], DueTime]
    )


class MemoryJournal:
    """Fulfils `Journal` without a disk; its threads survive `close`, but not the process.

    Several runtimes of one event loop may open the same object, and are fenced by its claims. No
    lock is needed: no method waits between what it reads and what it writes.
    """

    def __init__(self) -> None:
        self._threads: dict[str, _Kept] = {}
        self._by_number: dict[int, _Kept] = {}
        self._count = 0
        self._changes: list[tuple[int, int, str, str]] = []  # see `changes`
        self._spending: dict[str, dict[int, Spending]] = {}
        self._pulse = Pulse(IN_PROCESS)
        self._is_new = True
        self._opened = 1  # usable without `open`, by as many runtimes as open it
        self._files = MemoryFiles(self._user, self._require_open)

    @property
    def files(self) -> MemoryFiles:
        """The contents of the files that threads and owners use."""
        return self._files

    @property
    def is_shared(self) -> bool:
        """No other process can write to this memory."""
        return False

    @property
    def has_nodes(self) -> bool:
        """The runtimes of one process divide the threads among them."""
        return False

    @property
    def pulse(self) -> Pulse:
        """Beats when something was committed."""
        return self._pulse

    async def open(self) -> None:
        """Opens the journal, also again after `close`."""
        self._opened = 1 if self._is_new else self._opened + 1
        self._is_new = False

    def limit_waits(self, seconds: float | None) -> None:
        """Does nothing: it waits for no database."""

    async def close(self) -> None:
        """Refuses all calls once every opener has closed the journal, until it is opened again."""
        self._opened = max(0, self._opened - 1)
        self._pulse.beat()

    async def is_driven(self) -> bool:
        """Returns True: the process that has the memory drives it."""
        return True

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        """Adds a thread with its first events, and claims it."""
        self._require_open()
        self._files.require(files)
        kept = self._add(info)
        self._files.begin(files, kept.number, info.owner)
        kept.epoch = 1
        kept.events = recorded(entries)
        if projection is not None:
            self._project(kept, projection)
        return Claim(kept.number, 1)

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns a thread as lists show it."""
        return self._info(self._kept(thread_id))

    async def threads(self, query: ThreadQuery) -> Page[ThreadInfo]:
        """Returns a page of threads."""
        self._require_open()
        after = key_at(query.after, query.order, tuple[float, int]) if query.after else None
        labels = set(labels_of(query.agent, query.metadata))
        is_descending = query.order.startswith("-")
        found: list[tuple[tuple[float, int], _Kept]] = []
        for kept in self._threads.values():
            info, key = kept.info, _key(kept, query.order)
            if (
                query.owner in {None, info.owner}
                and query.parent == _parent(info)
                and bool(info.memory) == query.memories
                and (not query.status or kept.status in query.status)
                and labels <= set(labels_of(info.agent, info.metadata))
                and (after is None or (key < after if is_descending else key > after))
            ):
                found.append((key, kept))
        found.sort(key=lambda one: one[0], reverse=is_descending)
        page = found[: query.limit] if query.limit >= 0 else found
        has_more = len(page) < len(found)
        next = cursor(query.order, *page[-1][0]) if page and has_more else ""
        return Page([self._info(kept) for _, kept in page], next)

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns the last event of each thread."""
        self._require_open()
        return [
            ThreadMark(id, kept.info.owner, kept.number, len(kept.events), _parent(kept.info))
            for id, kept in self._threads.items()
            if owner in {None, kept.info.owner}
        ]

    async def claim(self, thread_id: str) -> Claim:
        """Takes a thread over: older claims are refused from now on."""
        kept = self._kept(thread_id)
        kept.epoch += 1
        return Claim(kept.number, kept.epoch)

    def append(self, batch: Batch) -> asyncio.Future[None]:
        """Appends a batch, whole or not at all; it is visible when this returns."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._append(batch)
        except (JournalClosed, StaleWriter) as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        return done

    def _append(self, batch: Batch) -> None:
        self._require_open()
        kept = self._claimed(batch.claim)
        kept.events.extend(recorded(batch.entries))
        for number in batch.consumed:
            kept.inbox.pop(number, None)
        if batch.projection is not None:
            self._project(kept, batch.projection)
        for slot, spending in batch.spending.items():
            slots = self._spending.setdefault(kept.info.owner, {})
            slots[slot] = slots.get(slot, Spending()) + spending

    async def spending(self, owner: str, *, since: float, until: float) -> Spending:
        """Returns what an owner has spent from `since` to before `until`."""
        self._require_open()
        slots = self._spending.get(owner, {})
        between = range(slot_of(since), slot_of(until))
        return sum((slots[slot] for slot in sorted(slots) if slot in between), Spending())

    def _project(self, kept: _Kept, projection: Projection) -> None:
        kept.status = projection.status
        kept.jobs = projection.jobs
        kept.info = changed(
            kept.info,
            updated_at=projection.updated_at,
            title=kept.info.title or projection.title,
        )
        if projection.new_title is not None:
            kept.info = changed(kept.info, title=projection.new_title)
        if projection.metadata is not None:
            metadata = updated(kept.info.metadata, projection.metadata)
            kept.info = changed(kept.info, metadata=metadata)
        if projection.expires_at is not None:
            expires_at = None if projection.expires_at == "never" else projection.expires_at
            kept.info = changed(kept.info, expires_at=expires_at)
        for seq, type in projection.told:
            self._changes.append((kept.number, seq, type, ""))
        self._pulse.beat()
        if projection.awaited is not None:
            awaited = {id: kept.calls[id] for id in projection.awaited if id in kept.calls}
            kept.calls = awaited | {call.call_id: call for call in projection.calls}
        for run in projection.runs:
            kept.runs[run.id] = merged(kept.runs.get(run.id, run), run)
        for key, sent in projection.keys:
            kept.keys.setdefault(key, sent)
        _set_due(kept, projection.due)

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Returns the fold of all events, or of the first `at`."""
        kept = self._kept(thread_id)
        state = kept.snapshot if at is None or at >= kept.snapshot.seq else ThreadState()
        return _fold(state, kept.events[state.seq : at])

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the fold of all events, perhaps without the items of the snapshot."""
        kept = self._kept(thread_id)
        state = kept.snapshot
        events = kept.events[state.seq :]
        unread = UnreadHistory(len(state.history), History())
        try:
            return _fold(changed(state, history=unread), events)
        except HistoryUnread:
            return _fold(state, events)

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns events with `after < seq <= until`."""
        events = self._kept(thread_id).events
        after = max(after, 0)
        last = len(events) if until is None else until
        return events[after : min(last, after + limit)]

    async def last_seq(self, thread_id: str) -> int:
        """Returns the number of the last event."""
        return len(self._kept(thread_id).events)

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`."""
        kept = self._threads.get(thread_id)
        return kept is None or seq <= len(kept.events)

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        """Keeps the fold of the events so far, so that `load` starts from it."""
        self._require_open()
        kept = self._claimed(claim)
        if state.seq > len(kept.events):
            raise JournalError(f"Event {state.seq} is not kept; append it before the snapshot.")
        if state.seq > kept.snapshot.seq:
            kept.snapshot = state

    async def snapshot_seq(self, thread_id: str) -> int:
        """Returns the number of the last event in the snapshot."""
        return self._kept(thread_id).snapshot.seq

    async def stored(self, thread_id: str, *, after: int, limit: int = 500) -> dict[int, bytes]:
        """Returns events as JSON, by their numbers."""
        events = self._kept(thread_id).events[after : after + limit]
        return {event.seq: Envelope(event, event.seq).json for event in events}

    async def redact(
        self,
        claim: Claim,
        events: Sequence[RecordedEvent],
        *,
        clears_title: bool,
        files: Sequence[str] = (),
    ) -> None:
        """Stores events in place of those with their numbers, and drops the snapshot."""
        self._require_open()
        kept = self._claimed(claim)
        for event in events:
            kept.events[event.seq - 1] = event
        kept.snapshot = ThreadState()
        if clears_title:
            kept.info = changed(kept.info, title="")
        self._files.release(kept.number, files, kept.events, list(kept.inbox.values()))

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns the record of a run, or None."""
        kept = self._kept(thread_id)
        return _record(kept, kept.runs.get(run_id))

    async def sent(self, thread_id: str, key: str, *, inbox: bool = True) -> Sent | None:
        """Returns what was sent with this key, consumed or waiting."""
        kept = self._kept(thread_id)
        if not inbox:
            return kept.keys.get(key)
        waiting = (
            Sent(entry.run_id if isinstance(entry, SendEntry) else "", identity_of(entry))
            for entry in kept.inbox.values()
            if isinstance(entry, KeyedEntry) and key and entry.key == key
        )
        return kept.keys.get(key) or next(waiting, None)

    async def find_run(
        self, run_id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> RunRecord | None:
        """Returns the record of a run, or None: of any thread, of an owner's, or of one thread."""
        self._require_open()
        threads = [
            kept
            for kept in self._threads.values()
            if owner in {None, kept.info.owner} and thread_id in {"", kept.info.id}
        ]
        for kept in threads:
            if run_id in kept.runs:
                return _record(kept, kept.runs[run_id])
        for kept in threads:
            for entry in kept.inbox.values():
                if isinstance(entry, SendEntry) and entry.run_id == run_id:
                    return promised(entry, kept.info.id, kept.info.agent)
        return None

    async def runs(
        self, thread_id: str, *, limit: int = -1, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of a thread, by their first events."""
        kept = self._kept(thread_id)
        behind = key_at(after, f"runs {order}", tuple[int, str]) if after else None
        runs = sorted(kept.runs.values(), key=place_of, reverse=order == "desc")
        if behind is not None:
            is_before = order == "desc"
            runs = [
                run
                for run in runs
                if (place_of(run) < behind if is_before else place_of(run) > behind)
            ]
        page = runs[:limit] if limit >= 0 else runs
        has_more = len(page) < len(runs)
        next = cursor(f"runs {order}", *place_of(page[-1])) if page and has_more else ""
        return Page([changed(run, thread_id=thread_id) for run in page], next)

    async def open_runs(self, thread_id: str) -> list[RunRecord]:
        """Returns the runs of a thread that have not ended, by their first events."""
        kept = self._kept(thread_id)
        runs = [run for run in kept.runs.values() if run.status in OPEN_STATUSES]
        return [changed(run, thread_id=thread_id) for run in sorted(runs, key=place_of)]

    async def calls(self, query: CallQuery) -> Page[WaitingCall]:
        """Returns a page of the calls that wait for an answer."""
        self._require_open()
        after = key_at(query.after, "calls", tuple[float, int, str]) if query.after else None
        found = [
            ((call.since, kept.number, call.call_id), kept, call)
            for kept in self._threads.values()
            for call in kept.calls.values()
            if query.owner in {None, kept.info.owner}
            and query.thread_id in {"", kept.info.id}
            and query.agent in {"", call.agent}
            and query.awaits in {None, call.awaits}
            and not _is_answered(kept, call.call_id)
        ]
        found = [one for one in found if after is None or one[0] > after]
        found.sort(key=lambda one: one[0])
        page = found[: query.limit] if query.limit >= 0 else found
        has_more = len(page) < len(found)
        next = cursor("calls", *page[-1][0]) if page and has_more else ""
        waiting = [_waiting(kept, call) for _, kept, call in page]
        return Page(waiting, next, str(len(self._changes)))

    async def changes(self, query: ChangeQuery) -> Changes:
        """Returns events of all threads behind a position."""
        self._require_open()
        newest = len(self._changes)
        if not query.after:
            return Changes((), str(newest))
        start = position_at(query.after, newest)
        rows = self._changes[start : start + SCANNED]
        found: list[DeskEvent] = []
        for number, (n, seq, type, gone) in enumerate(rows, start + 1):
            if query.types and type not in query.types:
                continue
            one = self._change(n, seq, type, gone, query.owner, str(number))
            if one is not None:
                found.append(one)
                if len(found) >= query.limit:
                    return Changes(found, str(number), number == newest)
        end = start + len(rows)
        return Changes(found, str(end), end == newest)

    def _change(
        self, n: int, seq: int, type: str, gone: str, owner: str | None, position: str
    ) -> DeskEvent | None:
        if gone:
            mark, _, thread_id = gone.partition(" ")
            is_owned = owner is None or owner_mark(owner) == mark
            deleted = DeskEvent(thread_id=thread_id, event=ThreadDeleted(), position=position)
            return deleted if is_owned else None
        kept = self._by_number.get(n)
        if kept is None or owner not in {None, kept.info.owner}:
            return None
        event = kept.events[seq - 1] if seq else ThreadCreated()
        if event.type != type:
            return None  # its content was removed
        return DeskEvent(
            thread_id=kept.info.id,
            owner=kept.info.owner,
            parent=_parent(kept.info),
            event=event,
            position=position,
        )

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts an entry into the inbox of a thread, unless it was sent or answered before."""
        kept = self._kept(thread_id)
        if isinstance(entry, KeyedEntry) and await self.sent(thread_id, entry.key):
            return
        if isinstance(entry, AnswerEntry) and _is_answered(kept, entry.call_id):
            return
        kept.inbox[self._next()] = entry

    async def inbox(self, thread_id: str) -> list[Waiting]:
        """Returns the waiting entries, in order."""
        return [Waiting(number, entry) for number, entry in self._kept(thread_id).inbox.items()]

    async def damaged_entries(self, thread_id: str) -> dict[int, bytes]:
        """Returns nothing: its entries are objects."""
        self._kept(thread_id)
        return {}

    async def discard(self, numbers: Sequence[int]) -> None:
        """Removes entries of inboxes that have no effect."""
        for kept in self._threads.values():
            for number in numbers:
                kept.inbox.pop(number, None)

    async def waiting_threads(self) -> list[str]:
        """Returns the threads with entries in their inboxes."""
        self._require_open()
        return [id for id, kept in self._threads.items() if kept.inbox]

    async def unfinished(self) -> list[Unfinished]:
        """Returns the threads with a run that waits or has not ended, or with open jobs."""
        self._require_open()
        return [
            Unfinished(id, kept.status, kept.jobs)
            for id, kept in self._threads.items()
            if kept.status in ACTIVE or kept.status == "queued" or kept.jobs
        ]

    async def due(
        self,
        *,
        limit: int,
        after: DuePlace | None = None,
        kind: DueKind | None = None,
        owner: str | None = None,
    ) -> list[Due]:
        """Returns due times, the earliest first."""
        self._require_open()
        found = [
            Due(
                at=one.at,
                number=kept.number,
                thread_id=kept.info.id,
                kind=one.kind,
                id=one.id,
                schedule=one.schedule,
            )
            for kept in self._threads.values()
            if owner in {None, kept.info.owner}
            for one in kept.due.values()
            if one.at is not None and kind in {None, one.kind}
        ]
        found.sort(key=lambda one: one.place)
        return [one for one in found if after is None or one.place > after][:limit]

    async def fork(self, fork: Fork) -> None:
        """Adds a thread with a copy of the first events of another."""
        events = self._kept(fork.source).events[: fork.at]
        kept = self._add(fork.info)
        self._files.fork(self._kept(fork.source).number, kept.number, fork.info.owner)
        kept.events = [*events, *recorded(fork.entries)]
        self._project(kept, fork.projection)

    async def delete(self, thread_id: str, *, due: Due | None = None) -> bool:
        """Removes a thread and everything that belongs to it."""
        kept = self._kept(thread_id)
        if due is not None:
            known = kept.due.get((due.kind, due.id))
            if known is None or known.at != due.at or kept.inbox:
                return False
        del self._threads[thread_id]
        del self._by_number[kept.number]
        self._files.delete(kept.number)
        gone = f"{owner_mark(kept.info.owner)} {thread_id}"
        self._changes.append((kept.number, 0, ThreadDeleted.type, gone))
        self._pulse.beat()
        return True

    def _user(self, thread_id: str) -> tuple[int, str]:
        kept = self._kept(thread_id)
        return kept.number, kept.info.owner

    def _claimed(self, claim: Claim) -> _Kept:
        kept = self._by_number.get(claim.number)
        if kept is None or kept.epoch != claim.epoch:
            raise stale()
        return kept

    def _add(self, info: ThreadInfo) -> _Kept:
        if info.id in self._threads:
            raise JournalError(f"The thread {info.id[:100]!r} already exists; use another id.")
        kept = _Kept(self._next(), info)
        self._threads[info.id] = self._by_number[kept.number] = kept
        _set_due(kept, deletions_of(info))
        self._changes.append((kept.number, 0, ThreadCreated.type, ""))
        self._pulse.beat()
        return kept

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _info(self, kept: _Kept) -> ThreadInfo:
        return changed(kept.info, status=kept.status)

    def _kept(self, thread_id: str) -> _Kept:
        self._require_open()
        if thread_id not in self._threads:
            raise not_found(thread_id)
        return self._threads[thread_id]

    def _require_open(self) -> None:
        if not self._opened:
            raise JournalClosed("The journal is closed; open the runtime again.")


def _set_due(kept: _Kept, due: Sequence[DueTime]) -> None:
    for one in due:
        kept.due.pop((one.kind, one.id), None)
        if one.at is not None:
            kept.due[one.kind, one.id] = one


def _key(kept: _Kept, order: ThreadOrder) -> tuple[float, int]:
    info = kept.info
    return info.updated_at if order.endswith("updated") else info.created_at, kept.number


def _record(kept: _Kept, run: RunRecord | None) -> RunRecord | None:
    return run and changed(run, thread_id=kept.info.id)


def _is_answered(kept: _Kept, call_id: str) -> bool:
    return any(
        isinstance(entry, AnswerEntry) and entry.call_id == call_id for entry in kept.inbox.values()
    )


def _waiting(kept: _Kept, call: CallRecord) -> WaitingCall:
    event = kept.events[call.seq - 1]
    assert isinstance(event, ToolCallRequested)
    due = kept.due.get(("approval", ""))
    expires_at = due.at if due is not None else None
    return waiting_call(call, event, kept.info.id, kept.info.owner, expires_at)


def _parent(info: ThreadInfo) -> str:
    return info.work.thread_id if info.work is not None else ""


def _fold(state: ThreadState, events: Sequence[RecordedEvent]) -> ThreadState:
    for event in events:
        state = apply(state, event)
    return state
