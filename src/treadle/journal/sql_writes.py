"""The writes of the journals in SQL, done in the thread of the writer, many in one transaction.

With SQLite each statement releases the interpreter lock and has to win it back from a busy event
loop, so the cost of a group is its number of statements. The events of a whole group are therefore
written with one statement, and so are the rows of each table for queries.

The fence against older claims is part of the statement that inserts the events, or of its
transaction. Nothing about claims is kept in memory except that an append failed. So the fence holds
between any two adapters on one database, in one process or in several.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
from msgspec import Struct

from treadle.domain.desk import ThreadCreated, ThreadDeleted, owner_mark
from treadle.domain.entries import (
    AddEntry,
    ApprovalEntry,
    DenialEntry,
    Entry,
    OutputEntry,
    SendEntry,
)
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent
from treadle.domain.metadata import updated
from treadle.domain.spending import Spending
from treadle.domain.state import ThreadState
from treadle.domain.usage import Spent
from treadle.errors import JournalError, JournalUnavailable, StaleWriter
from treadle.journal import sql_uses as uses
from treadle.journal.base import Batch, Claim, Due, Fork, ThreadInfo, deletions_of, not_found, stale
from treadle.journal.files import NewFile
from treadle.journal.labels import labels_of
from treadle.journal.projection import DueTime, Projection, RunRecord, Sent, merged
from treadle.journal.snapshot import encode_head, encode_items, extent_of
from treadle.journal.sql_connection import SEQ_BITS, Connection


class Change(Struct, frozen=True, eq=False):
    """A write other than an append: a function of the connection, run inside a transaction.

    An `ordered` change sees the batches that were appended before it, and none that were appended
    after it. The others may run before all batches of their group, which then need fewer
    statements.

    `thread_id` is the thread whose row it locks against appends.
    """

    run: Callable[[Connection], object]
    ordered: bool = True
    thread_id: str = ""


class Transactions:
    """Commits groups of writes; remembers which claims ended with an append that failed."""

    def __init__(
        self, connection: Connection, typed_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._connection = connection
        self._typed_errors = typed_errors
        # By thread, the newest claim of which an append failed. It stays for the life of the
        # adapter: batches of the claim may still wait in the queue after its driver has given up.
        self._failed: dict[int, int] = {}

    def commit(self, writes: Sequence[Batch | Change]) -> Sequence[object]:
        """Returns the outcome of each write: a result or an error.

        All writes share one transaction. If one fails, it is rolled back and each write gets its
        own, in the same order, so that the error reaches only the caller that caused it. A failed
        append ends its claim: batches after it would leave a gap, or be based on events that were
        never kept.
        """
        try:
            with self._typed_errors():
                return self._connection.transact(lambda: self._write(writes), _inserts(writes))
        except Exception as error:  # noqa: BLE001 - raised where the write is awaited
            # A server that is away was waited for; it is not waited for again for each write.
            if len(writes) == 1 or isinstance(error, JournalUnavailable):
                for write in writes:
                    self._note_failure(write, error)
                return [error] * len(writes)
        return [outcome for write in writes for outcome in self.commit([write])]

    def _write(self, writes: Sequence[Batch | Change]) -> Sequence[object]:
        results: dict[int, object] = {}
        waiting: list[Batch] = []
        locked = [write.thread_id for write in writes if isinstance(write, Change)]
        if len(locked := [thread_id for thread_id in locked if thread_id]) > 1:
            self._connection.lock_threads(locked)
        for write in writes:
            if isinstance(write, Batch):
                waiting.append(write)
                continue
            if write.ordered:
                self._append(waiting)
                waiting = []
            results[id(write)] = write.run(self._connection)
        self._append(waiting)
        return [results.get(id(write)) for write in writes]

    def _note_failure(self, write: Batch | Change, error: Exception) -> None:
        if isinstance(write, Batch) and not isinstance(error, StaleWriter):
            number, epoch = write.claim.number, write.claim.epoch
            # An older claim that fails as well must not hide that the newest one did.
            self._failed[number] = max(epoch, self._failed.get(number, 0))

    def _append(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        for batch in batches:
            if self._failed.get(batch.claim.number) == batch.claim.epoch:
                raise StaleWriter("An append before this one failed; claim the thread again.")
        _insert_events(self._connection, batches)
        _project(self._connection, batches)
        _spend(self._connection, batches)
        consumed = [number for batch in batches for number in batch.consumed]
        if consumed:
            _remove(self._connection, consumed)


def _inserts(writes: Sequence[Batch | Change]) -> int:
    """Returns how many events the writes insert if that is all they do, else 0."""
    count = 0
    for write in writes:
        if not isinstance(write, Batch):
            return 0
        if write.projection is not None or write.consumed or write.spending:
            return 0
        count += len(write.entries)
    return count


def _insert_events(connection: Connection, batches: Sequence[Batch]) -> None:
    """Inserts the events of batches; raises `StaleWriter` if a claim is not the newest one."""
    rows: list[tuple[int, bytes]] = []
    for batch in batches:
        start = batch.claim.number << SEQ_BITS
        rows += [(start | entry.seq, entry.json) for entry in batch.entries]
    claims = {batch.claim.number: batch.claim.epoch for batch in batches}
    if any(claims[batch.claim.number] != batch.claim.epoch for batch in batches):
        raise stale()  # two drivers of one thread in a group: at most one of them is valid
    connection.insert_events(claims, rows)


def _project(connection: Connection, batches: Sequence[Batch]) -> None:
    rows: dict[int, Sequence[object]] = {}
    runs: dict[tuple[int, str], RunRecord] = {}
    keys: list[Sequence[object]] = []
    told: list[Sequence[object]] = []
    due: dict[tuple[int, str, str], DueTime] = {}
    for batch in batches:
        projection, number = batch.projection, batch.claim.number
        if projection is None:
            continue
        title = rows[number][3] if number in rows and rows[number][3] else projection.title
        rows[number] = (
            number, projection.status, projection.updated_at, title, projection.jobs,
        )  # fmt: skip
        for run in projection.runs:
            before = runs.get((number, run.id))
            runs[number, run.id] = run if before is None else merged(before, run)
        keys += [(number, key, sent.run_id, sent.message_id) for key, sent in projection.keys]
        told += [(number, seq, type) for seq, type in projection.told]
        due |= {(number, one.kind, one.id): one for one in projection.due}
    connection.insert(
        "activity",
        "n, status, updated_at, title, jobs",
        list(rows.values()),
        "ON CONFLICT (n) DO UPDATE SET status = excluded.status, jobs = excluded.jobs,"
        " updated_at = excluded.updated_at,"
        " title = CASE activity.title WHEN '' THEN excluded.title ELSE activity.title END",
    )
    run_rows = [_run_row(number, run) for (number, _), run in runs.items()]
    connection.insert("run", _RUN_COLUMNS, run_rows, _MERGED)
    connection.insert("sent", "n, key, run_id, message_id", keys, "ON CONFLICT DO NOTHING")
    connection.insert("change", "n, seq, type", told, "")
    for batch in batches:
        if batch.projection is not None:
            _project_calls(connection, batch.claim.number, batch.projection)
            _project_fields(connection, batch.claim.number, batch.projection)
    if due:
        _set_due(connection, due)


def _spend(connection: Connection, batches: Sequence[Batch]) -> None:
    """Adds what batches spent to that of the owners of their threads."""
    numbers = {batch.claim.number for batch in batches if batch.spending}
    if not numbers:
        return
    rows = connection.execute(
        "SELECT n, owner FROM thread WHERE n IN (SELECT value FROM json_each(?))",
        (connection.array(list(numbers)),),
    ).fetchall()
    marks = {number: owner_mark(owner) for number, owner in rows}
    spent: dict[tuple[str, int], Spending] = {}
    for batch in batches:
        for slot, spending in batch.spending.items():
            key = (marks[batch.claim.number], slot)
            spent[key] = spent.get(key, Spending()) + spending
    connection.insert(
        "spending",
        "owner, slot, tokens, cost",
        # In one order everywhere, so that no two transactions wait for each other.
        [(mark, slot, one.tokens, one.cost) for (mark, slot), one in sorted(spent.items())],
        "ON CONFLICT (owner, slot) DO UPDATE SET tokens = spending.tokens + excluded.tokens,"
        " cost = spending.cost + excluded.cost",
    )


_RUN_COLUMNS = (
    "n, id, agent, agent_hash, status, first_seq, last_seq,"
    " seq, message_id, queued_at, started_at, ended_at, stop_reason, spent, error,"
    " metadata"
)
# As `treadle.journal.projection.merged` does. `seq` is that of the first event, which made the row:
# to set it again would write a page of its index at each change.
_MERGED = (
    "ON CONFLICT (n, id) DO UPDATE SET status = excluded.status,"
    " agent = CASE excluded.agent WHEN '' THEN run.agent ELSE excluded.agent END,"
    " agent_hash = CASE excluded.agent_hash WHEN '' THEN run.agent_hash"
    " ELSE excluded.agent_hash END,"
    " first_seq = CASE excluded.first_seq WHEN 0 THEN run.first_seq ELSE excluded.first_seq END,"
    " last_seq = CASE excluded.last_seq WHEN 0 THEN run.last_seq ELSE excluded.last_seq END,"
    " message_id = CASE excluded.message_id WHEN '' THEN run.message_id"
    " ELSE excluded.message_id END,"
    " queued_at = coalesce(excluded.queued_at, run.queued_at),"
    " started_at = coalesce(excluded.started_at, run.started_at),"
    " ended_at = coalesce(excluded.ended_at, run.ended_at),"
    " stop_reason = CASE excluded.stop_reason WHEN '' THEN run.stop_reason"
    " ELSE excluded.stop_reason END,"
    " spent = coalesce(excluded.spent, run.spent), error = coalesce(excluded.error, run.error),"
    " metadata = coalesce(excluded.metadata, run.metadata)"
)


def _run_row(number: int, run: RunRecord) -> tuple[object, ...]:
    spent = Spent(run.usage, run.cost, run.steps)
    return (
        number, run.id, run.agent, run.agent_hash, run.status, run.first_seq, run.last_seq,
        run.seq, run.message_id, run.queued_at, run.started_at, run.ended_at, run.stop_reason or "",
        msgspec.json.encode(spent) if run.last_seq else None,
        msgspec.json.encode(run.error) if run.error is not None else None,
        msgspec.json.encode(run.metadata) if run.metadata else None,
    )  # fmt: skip


def _project_calls(connection: Connection, number: int, projection: Projection) -> None:
    if projection.awaited is None:
        return
    connection.execute(
        "DELETE FROM call WHERE n = ? AND NOT call_id IN (SELECT value FROM json_each(?))",
        (number, connection.array(projection.awaited)),
    )
    for call in projection.calls:
        connection.execute(
            "INSERT INTO call (n, call_id, run_id, agent, awaits, seq, since, owner)"
            " SELECT n, ?, ?, ?, ?, ?, ?, owner FROM thread WHERE n = ?"
            " ON CONFLICT (n, call_id) DO UPDATE SET run_id = excluded.run_id,"
            " agent = excluded.agent, awaits = excluded.awaits, seq = excluded.seq,"
            " since = excluded.since",
            (call.call_id, call.run_id, call.agent, call.awaits, call.seq, call.since, number),
        )


def _project_fields(connection: Connection, number: int, projection: Projection) -> None:
    """Changes the title, the metadata and the expiry of a thread."""
    if projection.expires_at is not None:
        expires_at = None if projection.expires_at == "never" else projection.expires_at
        connection.execute("UPDATE thread SET expires_at = ? WHERE n = ?", (expires_at, number))
    if projection.new_title is not None:
        connection.execute(
            "UPDATE activity SET title = ? WHERE n = ?", (projection.new_title, number)
        )
    if projection.metadata is not None:
        agent, stored = connection.execute(
            "SELECT agent, metadata FROM thread WHERE n = ?", (number,)
        ).fetchone()
        metadata = updated(decode_metadata(stored), projection.metadata)
        connection.execute(
            "UPDATE thread SET metadata = ? WHERE n = ?", (msgspec.json.encode(metadata), number)
        )
        connection.execute("DELETE FROM label WHERE n = ?", (number,))
        _set_labels(connection, number, agent, metadata)


_METADATA = msgspec.json.Decoder(dict[str, object])


def decode_metadata(stored: bytes | str) -> dict[str, object]:
    """Returns metadata; damaged metadata must not hide its thread, or the others of a list."""
    try:
        return _METADATA.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _set_due(connection: Connection, due: Mapping[tuple[int, str, str], DueTime]) -> None:
    rows: list[Sequence[object]] = []
    for (number, kind, id), one in due.items():
        if one.at is None:
            connection.execute(
                "DELETE FROM due WHERE n = ? AND kind = ? AND id = ?", (number, kind, id)
            )
        else:
            body = None if one.schedule is None else msgspec.json.encode(one.schedule)
            rows.append((number, kind, id, one.at, body))
    connection.insert(
        "due",
        "n, kind, id, at, body",
        rows,
        "ON CONFLICT (n, kind, id) DO UPDATE SET at = excluded.at, body = excluded.body",
    )


def _require_newest(connection: Connection, claim: Claim) -> None:
    row = connection.execute(
        "SELECT epoch FROM thread WHERE n = ? /*! FOR SHARE */", (claim.number,)
    ).fetchone()
    if row is None or row[0] != claim.epoch:
        raise stale()


def number_of(connection: Connection, thread_id: str, lock: str = "") -> int:
    """Returns the number of a thread; raises `ThreadNotFound`."""
    sql = f"SELECT n FROM thread WHERE id = ? {lock}"  # noqa: S608 - of constants
    row = connection.execute(sql, (thread_id,)).fetchone()
    if row is None:
        raise not_found(thread_id)
    return row[0]


def create(
    info: ThreadInfo,
    entries: Sequence[Envelope],
    projection: Projection | None,
    files: Sequence[NewFile],
) -> Change:
    """Adds a thread with its first events and the files they mention, and claims it."""

    def change(connection: Connection) -> Claim:
        claim = Claim(_create(connection, info), 1)
        uses.begin(connection, files, claim.number, info.owner)
        if entries:
            batch = Batch(claim, entries, projection=projection)
            _insert_events(connection, [batch])
            _project(connection, [batch])
        return claim

    return Change(change, ordered=False)


def _create(connection: Connection, info: ThreadInfo) -> int:
    work = info.work
    row = connection.execute(
        "INSERT INTO thread"
        " (id, agent, owner, metadata, created_at, forked_from, parent, work, memory, key,"
        " key_digest, expires_at, store, epoch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)"
        " ON CONFLICT (id) DO NOTHING RETURNING n",
        (
            info.id,
            info.agent,
            info.owner,
            msgspec.json.encode(info.metadata),
            info.created_at,
            info.forked_from,
            work.thread_id if work is not None else "",
            msgspec.json.encode(work) if work is not None else None,
            info.memory,
            info.key,
            info.key_digest,
            info.expires_at,
            info.store,
        ),
    ).fetchone()
    if row is None:
        raise JournalError(f"The thread {info.id[:100]!r} already exists; use another id.")
    (number,) = row
    connection.execute(
        "INSERT INTO activity (n, updated_at, title, owner, listed) VALUES (?, ?, ?, ?, ?)",
        (number, info.updated_at, info.title, info.owner, work is None and not info.memory),
    )
    _set_labels(connection, number, info.agent, info.metadata)
    if deletions := deletions_of(info):
        _set_due(connection, {(number, one.kind, one.id): one for one in deletions})
    connection.execute(
        "INSERT INTO change (n, seq, type) VALUES (?, 0, ?)", (number, ThreadCreated.type)
    )
    return number


def _set_labels(
    connection: Connection, number: int, agent: str, metadata: Mapping[str, object]
) -> None:
    rows = [(*label, number) for label in labels_of(agent, metadata)]
    connection.insert("label", "name, value, n", rows, "")


def claim(thread_id: str) -> Change:
    """Takes a thread over: older claims are refused from now on."""

    def change(connection: Connection) -> Claim:
        row = connection.execute(
            "UPDATE thread SET epoch = epoch + 1 WHERE id = ?"  # noqa: S608 - of constants
            f" {connection.owned} RETURNING n, epoch",
            (thread_id,),
        ).fetchone()
        if row is None:
            number_of(connection, thread_id)
            raise stale()  # it belongs to another node
        return Claim(*row)

    return Change(change, thread_id=thread_id)


def sent(connection: Connection, number: int, key: str, *, inbox: bool = True) -> Sent | None:
    """Returns what was sent with this key, consumed or (with `inbox`) waiting."""
    sql, values = "SELECT run_id, message_id FROM sent WHERE n = ? AND key = ?", [number, key]
    if inbox:
        # In one statement: it leaves the inbox in the transaction that notes its key.
        sql = (
            f"{sql} UNION ALL SELECT run_id, identity FROM ("  # noqa: S608 - of constants
            f"SELECT coalesce(run_id, '') AS run_id, identity FROM {connection.inbox} AS i"
            " WHERE n = ? AND key = ? AND type IN ('send', 'add') ORDER BY number LIMIT 1) AS one"
        )
        values *= 2
    row = connection.execute(sql, values).fetchone()
    return Sent(*row) if row is not None else None


def discard(numbers: Sequence[int]) -> Change:
    """Removes entries of inboxes."""

    def change(connection: Connection) -> None:
        _remove(connection, numbers)

    return Change(change, ordered=False)


def _remove(connection: Connection, numbers: Sequence[int]) -> None:
    # As one value, because the number of parameters of a statement is limited.
    connection.execute(
        "DELETE FROM inbox WHERE number IN (SELECT value FROM json_each(?))",
        (connection.array(numbers),),
    )


def enqueue(thread_id: str, entry: Entry) -> Change:
    """Puts an entry into the inbox of a thread, unless it was sent or answered before."""
    body = msgspec.json.encode(entry)

    def change(connection: Connection) -> None:
        number = number_of(connection, thread_id, "/*! FOR KEY SHARE */")
        # Check and insertion are one step for each thread, and numbers grow with the commits, so
        # that a driver which has seen an entry misses none before it.
        connection.lock("inbox", number)
        match entry:
            case SendEntry(key=key) | AddEntry(key=key) if _is_used(connection, number, key):
                return
            case OutputEntry() | ApprovalEntry() | DenialEntry():
                if _has_answer(connection, number, entry.call_id):
                    return
            case _:
                pass
        connection.put_entry(number, entry, body)

    return Change(change, ordered=False)


def _is_used(connection: Connection, number: int, key: str) -> bool:
    return bool(key) and sent(connection, number, key) is not None


def _has_answer(connection: Connection, number: int, call_id: str) -> bool:
    """Whether an answer to the call waits in the inbox; only answers name a call."""
    row = connection.execute(
        f"SELECT 1 FROM {connection.inbox} AS i WHERE n = ? AND call_id = ?",  # noqa: S608 - of constants
        (number, call_id),
    ).fetchone()
    return row is not None


def snapshot(claim: Claim, state: ThreadState) -> Change:
    """Keeps the head of the state, and the items that no earlier snapshot contains."""

    def change(connection: Connection) -> None:
        number = claim.number
        _require_newest(connection, claim)
        _require_kept(connection, number, state.seq)
        kept, edited = _kept_items(connection, number) or (0, state.edited)
        if edited != state.edited:
            # The history was replaced: the items of earlier snapshots are not its beginning.
            connection.execute("DELETE FROM snapshot WHERE n = ?", (number,))
            connection.execute("DELETE FROM history WHERE n = ?", (number,))
            kept = 0
        connection.execute(
            "INSERT INTO snapshot (n, seq, head) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (number, state.seq, encode_head(state)),
        )
        items = state.history[kept:]
        if items:
            connection.execute(
                "INSERT INTO history (n, first, items) VALUES (?, ?, ?)",
                (number, kept, encode_items(items)),
            )

    return Change(change)


def _kept_items(connection: Connection, number: int) -> tuple[int, int] | None:
    """Returns how many items the snapshots of a thread contain, and after which edit."""
    row = connection.execute(
        "SELECT head FROM snapshot WHERE n = ? ORDER BY seq DESC LIMIT 1", (number,)
    ).fetchone()
    return extent_of(row[0]) if row is not None else None


def redact(
    claim: Claim,
    events: Sequence[RecordedEvent],
    *,
    clears_title: bool,
    files: Sequence[str] = (),
) -> Change:
    """Stores events in place of those with their numbers, and drops all snapshots."""
    bodies = [(event.seq, msgspec.json.encode(event)) for event in events]

    def change(connection: Connection) -> None:
        number = claim.number
        _require_newest(connection, claim)
        connection.insert(
            "event",
            "position, body",
            [(number << SEQ_BITS | seq, body) for seq, body in bodies],
            "ON CONFLICT (position) DO UPDATE SET body = excluded.body",
        )
        connection.execute("DELETE FROM snapshot WHERE n = ?", (number,))
        connection.execute("DELETE FROM history WHERE n = ?", (number,))
        if clears_title:
            connection.execute("UPDATE activity SET title = '' WHERE n = ?", (number,))
        uses.release(connection, number, files)

    return Change(change)


def _require_kept(connection: Connection, number: int, seq: int) -> None:
    """Raises `JournalError` unless event `seq` is kept: the fold may not be ahead of the events."""
    if seq == 0:
        return
    position = number << SEQ_BITS | seq
    row = connection.execute("SELECT 1 FROM event WHERE position = ?", (position,)).fetchone()
    if row is None:
        raise JournalError(f"Event {seq} is not kept; append it before the snapshot.")


def fork(fork: Fork) -> Change:
    """Copies the first events of a thread to a new one, and the snapshots of these events."""

    def change(connection: Connection) -> None:
        old = number_of(connection, fork.source, "/*! FOR SHARE */")
        new = _create(connection, fork.info)
        start = old << SEQ_BITS
        connection.execute(
            "INSERT INTO event (position, body) SELECT position - ? + ?, body FROM event"
            " WHERE position > ? AND position <= ?",
            (start, new << SEQ_BITS, start, start | fork.at),
        )
        connection.execute(
            "INSERT INTO snapshot (n, seq, head)"
            " SELECT ?, seq, head FROM snapshot WHERE n = ? AND seq <= ?",
            (new, old, fork.at),
        )
        kept = _kept_items(connection, new)
        if kept is not None:
            connection.execute(
                "INSERT INTO history (n, first, items)"
                " SELECT ?, first, items FROM history WHERE n = ? AND first < ?",
                (new, old, kept[0]),
            )
        uses.fork(connection, old, new, fork.info.owner)
        batch = Batch(Claim(new, 1), fork.entries, projection=fork.projection)
        _insert_events(connection, [batch])
        _project(connection, [batch])

    return Change(change)


_TABLES = (
    "activity", "run", "call", "sent", "due", "inbox", "snapshot", "history", "label", "thread",
)  # fmt: skip


def delete(thread_id: str, due: Due | None) -> Change:
    """Removes a thread and everything that belongs to it; with `due`, only if that still is."""

    def change(connection: Connection) -> bool:
        number = number_of(connection, thread_id, "/*! FOR UPDATE */")
        if due is not None and not _is_due(connection, number, due):
            return False
        (owner,) = connection.execute("SELECT owner FROM thread WHERE n = ?", (number,)).fetchone()
        connection.execute(
            "DELETE FROM event WHERE position > ? AND position < ?",
            (number << SEQ_BITS, (number + 1) << SEQ_BITS),
        )
        uses.end(connection, "n = ?", number)
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table} WHERE n = ?", (number,))  # noqa: S608
        connection.execute(
            "INSERT INTO change (n, seq, type, gone) VALUES (?, 0, ?, ?)",
            (number, ThreadDeleted.type, f"{owner_mark(owner)} {thread_id}"),
        )
        return True

    return Change(change, thread_id=thread_id)


def _is_due(connection: Connection, number: int, due: Due) -> bool:
    """Whether something is still due on a thread, and no entry waits that may change that."""
    row = connection.execute(
        "SELECT 1 FROM due WHERE n = ? AND kind = ? AND id = ? AND at = ?"
        " AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.n = due.n)",
        (number, due.kind, due.id, due.at),
    ).fetchone()
    return row is not None


def require_claim(result: object) -> Claim:
    """Returns the outcome of `claim` or `create` as a `Claim`."""
    if not isinstance(result, Claim):
        raise JournalError("The thread could not be claimed.")
    return result
