"""The writes of the SQLite journal, done in its writing thread, many in one transaction.

Each statement releases the interpreter lock and has to win it back from a busy event loop, so the
cost of a group is its number of statements. The events of a whole group are therefore written with
one statement, and so are the rows of each table for queries.

The fence against older claims costs no statement: it is a condition of the statement that inserts
the events. Nothing about claims is kept in memory except that an append failed. So the fence holds
between any two adapters on one database, in one process or in several.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
from treadle.errors import JournalError, StaleWriter
from treadle.journal import sqlite_uses as uses
from treadle.journal.base import Batch, Claim, Fork, ThreadInfo, not_found
from treadle.journal.labels import labels_of
from treadle.journal.projection import DueTime, Projection, RunRecord, Sent
from treadle.journal.snapshot import encode_head, encode_items
from treadle.journal.sqlite_file import SEQ_BITS, typed_errors


class Change(Struct, frozen=True, eq=False):
    """A write other than an append: a function of the connection, run inside a transaction.

    An `ordered` change sees the batches that were appended before it, and none that were appended
    after it. The others may run before all batches of their group, which then need fewer
    statements.
    """

    run: Callable[[sqlite3.Connection], object]
    ordered: bool = True


_MOST_ROWS = 256

# A damaged entry must not hinder those around it.
_INBOX = """(
    SELECT number, CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) END AS body
    FROM inbox WHERE n = ?)"""

_WAITING_MESSAGE = f"""
    SELECT coalesce(body ->> '$.run_id', ''), coalesce(body ->> '$.digest', body ->> '$.item.id')
    FROM {_INBOX} WHERE body ->> '$.key' = ? AND body ->> '$.type' IN ('send', 'add')
    ORDER BY number LIMIT 1
"""  # noqa: S608 - it is made of constants

# The subquery of the fence names no column of the rows, so SQLite evaluates it once: all rows are
# inserted or none, even without a transaction around the statement. An INSERT takes the lock of
# the writer before it reads, so no claim of another connection can come between the two.
_FENCED = "SELECT column1, column2 FROM (VALUES {rows}) WHERE {newest}"
_IS_NEWEST = "(SELECT epoch FROM thread WHERE n = ?) = ?"
# Several claims are passed as one JSON value: one text for any number of them, so that the
# compiled statement is reused. The LEFT JOIN with IS NOT also finds threads that were deleted.
_ARE_NEWEST = """
    NOT EXISTS (SELECT 1 FROM json_each(?) AS claim
        LEFT JOIN thread ON thread.n = claim.value ->> 0
        WHERE thread.epoch IS NOT claim.value ->> 1)
"""


class Transactions:
    """Commits groups of writes; remembers which claims ended with an append that failed."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
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
            with typed_errors(self._path):
                return self._transaction(writes)
        except Exception as error:  # noqa: BLE001 - raised where the write is awaited
            if len(writes) == 1:
                self._note_failure(writes[0], error)
                return [error]
        return [outcome for write in writes for outcome in self.commit([write])]

    def _transaction(self, writes: Sequence[Batch | Change]) -> Sequence[object]:
        connection = self._connection
        batches = [write for write in writes if isinstance(write, Batch)]
        if len(batches) == len(writes) and _is_one_statement(batches):
            # SQLite runs a statement outside of BEGIN as a transaction of its own: a third of the
            # statements for the most frequent group, a few events without rows for queries.
            self._append(batches)
            return [None] * len(batches)
        # IMMEDIATE takes the lock of the writer now: with a plain BEGIN, an epoch could be read
        # before another connection claims the thread, and the write would fail without waiting.
        connection.execute("BEGIN IMMEDIATE")
        try:
            results: dict[int, object] = {}
            waiting: list[Batch] = []
            for write in writes:
                if isinstance(write, Batch):
                    waiting.append(write)
                    continue
                if write.ordered:
                    self._append(waiting)
                    waiting = []
                results[id(write)] = write.run(connection)
            self._append(waiting)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
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


def _is_one_statement(batches: Sequence[Batch]) -> bool:
    """Whether `_append` writes these batches with exactly one statement."""
    count = sum(len(batch.entries) for batch in batches)
    plain = all(
        batch.projection is None and not batch.consumed and not batch.spending for batch in batches
    )
    return plain and 0 < count <= _MOST_ROWS and _size(count) == count


def _insert_events(connection: sqlite3.Connection, batches: Sequence[Batch]) -> None:
    """Inserts the events of batches; raises `StaleWriter` if a claim is not the newest one.

    The first statement compares the epochs as it writes. If there are more rows than fit into it,
    the transaction around it keeps other connections from claiming before the rest.
    """
    rows: list[object] = []
    for batch in batches:
        start = batch.claim.number << SEQ_BITS
        for entry in batch.entries:
            rows += (start | entry.seq, entry.json)
    claims = {batch.claim.number: batch.claim.epoch for batch in batches}
    if any(claims[batch.claim.number] != batch.claim.epoch for batch in batches):
        raise _stale()  # two drivers of one thread in a group: at most one of them is valid
    newest, fence = _IS_NEWEST, [value for claim in claims.items() for value in claim]
    if len(claims) > 1:
        newest, fence = _ARE_NEWEST, [msgspec.json.encode(list(claims.items())).decode()]
    if not rows:
        if not connection.execute(f"SELECT {newest}", fence).fetchone()[0]:
            raise _stale()
        return
    size = _size(len(rows) // 2)
    select = _FENCED.format(rows=",".join(["(?,?)"] * size), newest=newest)
    cursor = connection.execute(f"INSERT INTO event {select}", (*rows[: 2 * size], *fence))
    if cursor.rowcount != size:
        raise _stale()
    _insert(connection, "INSERT INTO event VALUES ", rows[2 * size :], 2)


def _stale() -> StaleWriter:
    return StaleWriter("Another driver has taken the thread over, or it was deleted.")


def _insert(
    connection: sqlite3.Connection, head: str, values: list[object], width: int, tail: str = ""
) -> None:
    """Inserts rows of `width` values with as few statements as possible."""
    row = f"({','.join('?' * width)})"
    start, left = 0, len(values) // width
    while left:
        size = _size(left)
        end = start + size * width
        connection.execute(head + ",".join([row] * size) + tail, values[start:end])
        start, left = end, left - size


def _size(rows: int) -> int:
    """Returns how many of `rows` the next statement inserts.

    There are few sizes (1 to 32, then powers of two), because sqlite3 keeps the compiled form of
    128 statements per connection.
    """
    return rows if rows <= 32 else min(_MOST_ROWS, 1 << (rows.bit_length() - 1))


def _project(connection: sqlite3.Connection, batches: Sequence[Batch]) -> None:
    rows: dict[int, list[object]] = {}
    runs: list[object] = []
    keys: list[object] = []
    due: dict[tuple[int, str, str], DueTime] = {}
    for batch in batches:
        projection, number = batch.projection, batch.claim.number
        if projection is None:
            continue
        title = rows[number][3] if number in rows and rows[number][3] else projection.title
        rows[number] = [
            number, projection.status, projection.updated_at, title, projection.jobs,
        ]  # fmt: skip
        for run in projection.runs:
            runs += _run_row(number, run)
        for key, sent in projection.keys:
            keys += (number, key, sent.run_id, sent.message_id)
        due |= {(number, one.kind, one.id): one for one in projection.due}
    _insert(
        connection,
        "INSERT INTO activity (n, status, updated_at, title, jobs) VALUES ",
        [value for row in rows.values() for value in row],
        5,
        " ON CONFLICT (n) DO UPDATE SET status = excluded.status, jobs = excluded.jobs,"
        " updated_at = excluded.updated_at,"
        " title = CASE title WHEN '' THEN excluded.title ELSE title END",
    )
    _insert(connection, f"INSERT INTO run ({_RUN_COLUMNS}) VALUES ", runs, 15, _MERGED)  # noqa: S608 - of constants
    _insert(connection, "INSERT OR IGNORE INTO sent VALUES ", keys, 4)
    told: list[object] = []
    for batch in batches:
        if batch.projection is not None:
            for seq, type in batch.projection.told:
                told += (batch.claim.number, seq, type)
    _insert(connection, "INSERT INTO change (n, seq, type) VALUES ", told, 3)
    for batch in batches:
        if batch.projection is not None:
            _project_calls(connection, batch.claim.number, batch.projection)
            _project_fields(connection, batch.claim.number, batch.projection)
    if due:
        _set_due(connection, due)


def _spend(connection: sqlite3.Connection, batches: Sequence[Batch]) -> None:
    """Adds what batches spent to that of the owners of their threads."""
    spent: dict[tuple[int, int], Spending] = {}
    for batch in batches:
        for slot, spending in batch.spending.items():
            key = (batch.claim.number, slot)
            spent[key] = spent.get(key, Spending()) + spending
    if not spent:
        return
    numbers = msgspec.json.encode({number for number, _ in spent}).decode()
    owners = dict(
        connection.execute(
            "SELECT n, owner FROM thread WHERE n IN (SELECT value FROM json_each(?))", (numbers,)
        ).fetchall()
    )
    rows: list[object] = []
    for (number, slot), spending in spent.items():
        rows += (owner_mark(owners[number]), slot, spending.tokens, spending.cost)
    _insert(
        connection,
        "INSERT INTO spending VALUES ",
        rows,
        4,
        " ON CONFLICT (owner, slot) DO UPDATE SET tokens = tokens + excluded.tokens,"
        " cost = cost + excluded.cost",
    )


_RUN_COLUMNS = (
    "n, id, agent, agent_hash, status, first_seq, last_seq,"
    " seq, message_id, queued_at, started_at, ended_at, stop_reason, spent, error"
)
# As `treadle.journal.projection.merged` does.
_MERGED = (
    " ON CONFLICT (n, id) DO UPDATE SET status = excluded.status,"
    " agent = CASE excluded.agent WHEN '' THEN agent ELSE excluded.agent END,"
    " agent_hash = CASE excluded.agent_hash WHEN '' THEN agent_hash ELSE excluded.agent_hash END,"
    " first_seq = max(first_seq, excluded.first_seq),"
    " last_seq = max(last_seq, excluded.last_seq),"
    " seq = CASE seq WHEN 0 THEN excluded.seq ELSE seq END,"
    " message_id = CASE excluded.message_id WHEN '' THEN message_id ELSE excluded.message_id END,"
    " queued_at = coalesce(excluded.queued_at, queued_at),"
    " started_at = coalesce(excluded.started_at, started_at),"
    " ended_at = coalesce(excluded.ended_at, ended_at),"
    " stop_reason = CASE excluded.stop_reason WHEN '' THEN stop_reason"
    " ELSE excluded.stop_reason END,"
    " spent = coalesce(excluded.spent, spent), error = coalesce(excluded.error, error)"
)


def _run_row(number: int, run: RunRecord) -> tuple[object, ...]:
    spent = Spent(run.usage, run.cost, run.steps)
    return (
        number, run.id, run.agent, run.agent_hash, run.status, run.first_seq, run.last_seq,
        run.seq, run.message_id, run.queued_at, run.started_at, run.ended_at, run.stop_reason or "",
        msgspec.json.encode(spent) if run.last_seq else None,
        msgspec.json.encode(run.error) if run.error is not None else None,
    )  # fmt: skip


def _project_calls(connection: sqlite3.Connection, number: int, projection: Projection) -> None:
    if projection.awaited is None:
        return
    connection.execute(
        "DELETE FROM call WHERE n = ? AND call_id NOT IN (SELECT value FROM json_each(?))",
        (number, msgspec.json.encode(projection.awaited).decode()),
    )
    for call in projection.calls:
        connection.execute(
            "INSERT OR REPLACE INTO call SELECT n, ?, ?, ?, ?, ?, ?, owner FROM thread WHERE n = ?",
            (call.call_id, call.run_id, call.agent, call.awaits, call.seq, call.since, number),
        )


def _project_fields(connection: sqlite3.Connection, number: int, projection: Projection) -> None:
    """Changes the title and the metadata of a thread."""
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


def decode_metadata(stored: bytes) -> dict[str, object]:
    """Returns metadata; damaged metadata must not hide its thread, or the others of a list."""
    try:
        return _METADATA.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _set_due(connection: sqlite3.Connection, due: Mapping[tuple[int, str, str], DueTime]) -> None:
    values: list[object] = []
    for (number, kind, id), one in due.items():
        if one.at is None:
            connection.execute(
                "DELETE FROM due WHERE n = ? AND kind = ? AND id = ?", (number, kind, id)
            )
        else:
            body = None if one.schedule is None else msgspec.json.encode(one.schedule)
            values += (number, kind, id, one.at, body)
    _insert(connection, "INSERT OR REPLACE INTO due VALUES ", values, 5)


def _epoch_of(connection: sqlite3.Connection, number: int) -> int:
    row = connection.execute("SELECT epoch FROM thread WHERE n = ?", (number,)).fetchone()
    return row[0] if row is not None else 0


def number_of(connection: sqlite3.Connection, thread_id: str) -> int:
    """Returns the number of a thread; raises `ThreadNotFound`."""
    row = connection.execute("SELECT n FROM thread WHERE id = ?", (thread_id,)).fetchone()
    if row is None:
        raise not_found(thread_id)
    return row[0]


def create(
    info: ThreadInfo, entries: Sequence[Envelope] = (), projection: Projection | None = None
) -> Change:
    """Adds a thread with its first events, and claims it."""

    def change(connection: sqlite3.Connection) -> Claim:
        claim = Claim(_create(connection, info), 1)
        if entries:
            batch = Batch(claim, entries, projection=projection)
            _insert_events(connection, [batch])
            _project(connection, [batch])
        return claim

    return Change(change, ordered=False)


def _create(connection: sqlite3.Connection, info: ThreadInfo) -> int:
    work = info.work
    cursor = connection.execute(
        "INSERT OR IGNORE INTO thread"
        " (id, agent, owner, metadata, created_at, forked_from, parent, work, memory, key,"
        " key_digest, epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
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
        ),
    )
    number = cursor.lastrowid
    if cursor.rowcount == 0 or number is None:
        raise JournalError(f"The thread {info.id[:100]!r} already exists; use another id.")
    connection.execute(
        "INSERT INTO activity (n, updated_at, title, owner, listed) VALUES (?, ?, ?, ?, ?)",
        (number, info.created_at, info.title, info.owner, work is None and not info.memory),
    )
    _set_labels(connection, number, info.agent, info.metadata)
    connection.execute(
        "INSERT INTO change (n, seq, type) VALUES (?, 0, ?)", (number, ThreadCreated.type)
    )
    return number


def _set_labels(
    connection: sqlite3.Connection, number: int, agent: str, metadata: Mapping[str, object]
) -> None:
    rows: list[object] = []
    for label in labels_of(agent, metadata):
        rows += (*label, number)
    _insert(connection, "INSERT INTO label VALUES ", rows, 3)


def claim(thread_id: str) -> Change:
    """Takes a thread over: older claims are refused from now on."""

    def change(connection: sqlite3.Connection) -> Claim:
        row = connection.execute(
            "UPDATE thread SET epoch = epoch + 1 WHERE id = ? RETURNING n, epoch", (thread_id,)
        ).fetchone()
        if row is None:
            raise not_found(thread_id)
        return Claim(*row)

    return Change(change)


def sent(
    connection: sqlite3.Connection, number: int, key: str, *, inbox: bool = True
) -> Sent | None:
    """Returns what was sent with this key, consumed or (with `inbox`) waiting."""
    row = connection.execute(
        "SELECT run_id, message_id FROM sent WHERE n = ? AND key = ?", (number, key)
    ).fetchone()
    if row is None and inbox:
        row = connection.execute(
            _WAITING_MESSAGE,
            (number, key),
        ).fetchone()
    return Sent(*row) if row is not None else None


def discard(numbers: Sequence[int]) -> Change:
    """Removes entries of inboxes."""

    def change(connection: sqlite3.Connection) -> None:
        _remove(connection, numbers)

    return Change(change, ordered=False)


def _remove(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    # As one JSON value, because the number of parameters of a statement is limited.
    connection.execute(
        "DELETE FROM inbox WHERE number IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(numbers).decode(),),
    )


def enqueue(thread_id: str, entry: Entry) -> Change:
    """Puts an entry into the inbox of a thread, unless it was sent or answered before."""
    body = msgspec.json.encode(entry)

    def change(connection: sqlite3.Connection) -> None:
        number = number_of(connection, thread_id)
        match entry:
            case SendEntry(key=key) | AddEntry(key=key) if _is_used(connection, number, key):
                return
            case OutputEntry() | ApprovalEntry() | DenialEntry():
                if _has_answer(connection, number, entry.call_id):
                    return
            case _:
                pass
        connection.execute("INSERT INTO inbox (n, body) VALUES (?, ?)", (number, body))

    return Change(change, ordered=False)


def _is_used(connection: sqlite3.Connection, number: int, key: str) -> bool:
    return bool(key) and sent(connection, number, key) is not None


def _has_answer(connection: sqlite3.Connection, number: int, call_id: str) -> bool:
    """Whether an answer to the call waits in the inbox; only answers name a call."""
    row = connection.execute(
        f"SELECT 1 FROM {_INBOX} WHERE body ->> '$.call_id' = ?",  # noqa: S608
        (number, call_id),
    ).fetchone()
    return row is not None


def snapshot(claim: Claim, state: ThreadState) -> Change:
    """Keeps the head of the state, and the items that no earlier snapshot contains."""

    def change(connection: sqlite3.Connection) -> None:
        number = claim.number
        if _epoch_of(connection, number) != claim.epoch:
            raise _stale()
        _require_kept(connection, number, state.seq)
        row = connection.execute(
            "SELECT head ->> '$.items', coalesce(head ->> '$.edited', 0) FROM snapshot"
            " WHERE n = ? ORDER BY seq DESC LIMIT 1",
            (number,),
        ).fetchone()
        kept, edited = row if row is not None else (0, state.edited)
        if edited != state.edited:
            # The history was replaced: the items of earlier snapshots are not its beginning.
            connection.execute("DELETE FROM snapshot WHERE n = ?", (number,))
            connection.execute("DELETE FROM history WHERE n = ?", (number,))
            kept = 0
        connection.execute(
            "INSERT OR IGNORE INTO snapshot VALUES (?, ?, ?)",
            (number, state.seq, encode_head(state)),
        )
        items = state.history[kept:]
        if items:
            connection.execute(
                "INSERT INTO history VALUES (?, ?, ?)", (number, kept, encode_items(items))
            )

    return Change(change)


def redact(
    claim: Claim,
    events: Sequence[RecordedEvent],
    *,
    clears_title: bool,
    files: Sequence[str] = (),
) -> Change:
    """Stores events in place of those with their numbers, and drops all snapshots."""
    bodies = [(event.seq, msgspec.json.encode(event)) for event in events]

    def change(connection: sqlite3.Connection) -> None:
        number = claim.number
        if _epoch_of(connection, number) != claim.epoch:
            raise _stale()
        connection.executemany(
            "INSERT OR REPLACE INTO event VALUES (?, ?)",
            [(number << SEQ_BITS | seq, body) for seq, body in bodies],
        )
        connection.execute("DELETE FROM snapshot WHERE n = ?", (number,))
        connection.execute("DELETE FROM history WHERE n = ?", (number,))
        if clears_title:
            connection.execute("UPDATE activity SET title = '' WHERE n = ?", (number,))
        uses.release(connection, number, files)

    return Change(change)


def _require_kept(connection: sqlite3.Connection, number: int, seq: int) -> None:
    """Raises `JournalError` unless event `seq` is kept: the fold may not be ahead of the events."""
    if seq == 0:
        return
    position = number << SEQ_BITS | seq
    row = connection.execute("SELECT 1 FROM event WHERE position = ?", (position,)).fetchone()
    if row is None:
        raise JournalError(f"Event {seq} is not kept; append it before the snapshot.")


def fork(fork: Fork) -> Change:
    """Copies the first events of a thread to a new one, and the snapshots of these events."""

    def change(connection: sqlite3.Connection) -> None:
        old = number_of(connection, fork.source)
        new = _create(connection, fork.info)
        start = old << SEQ_BITS
        connection.execute(
            "INSERT INTO event SELECT position - ? + ?, body FROM event"
            " WHERE position > ? AND position <= ?",
            (start, new << SEQ_BITS, start, start | fork.at),
        )
        connection.execute(
            "INSERT INTO snapshot SELECT ?, seq, head FROM snapshot WHERE n = ? AND seq <= ?",
            (new, old, fork.at),
        )
        connection.execute(
            "INSERT INTO history SELECT ?, first, items FROM history WHERE n = ? AND first <"
            " (SELECT max(head ->> '$.items') FROM snapshot WHERE n = ?)",
            (new, old, new),
        )
        uses.fork(connection, old, new, fork.info.owner)
        batch = Batch(Claim(new, 1), fork.entries, projection=fork.projection)
        _insert_events(connection, [batch])
        _project(connection, [batch])

    return Change(change)


_TABLES = (
    "activity", "run", "call", "sent", "due", "inbox", "snapshot", "history", "label", "thread",
)  # fmt: skip


def delete(thread_id: str) -> Change:
    """Removes a thread and everything that belongs to it."""

    def change(connection: sqlite3.Connection) -> None:
        number = number_of(connection, thread_id)
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

    return Change(change)


def require_claim(result: object) -> Claim:
    """Returns the outcome of `claim` or `create` as a `Claim`."""
    if not isinstance(result, Claim):
        raise JournalError("The thread could not be claimed.")
    return result
