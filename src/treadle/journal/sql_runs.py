"""Runs and waiting calls in SQL: found by their ids, and listed in pages."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from treadle.domain.cursor import cursor, key_at
from treadle.domain.entries import SendEntry
from treadle.domain.envelope import decode_recorded
from treadle.domain.events import ToolCallRequested
from treadle.domain.page import Page
from treadle.domain.usage import Spent
from treadle.journal.base import CallQuery, Direction, WaitingCall, promised, waiting_call
from treadle.journal.projection import OPEN_STATUSES, CallRecord, RunError, RunRecord, place_of
from treadle.journal.sql_connection import NO_LIMIT, SEQ_BITS, Connection
from treadle.journal.sql_writes import decode_metadata

_RUN = """
    SELECT t.id, r.id, r.agent, r.agent_hash, r.status, r.first_seq, r.last_seq, r.seq,
        r.message_id, r.queued_at, r.started_at, r.ended_at, r.stop_reason, r.spent, r.error,
        r.metadata
    FROM run r JOIN thread t ON t.n = r.n
"""
RUN_BY_ID = f"{_RUN} WHERE r.id = ?"
_OPEN = ", ".join(f"'{status}'" for status in OPEN_STATUSES)
# The status of the thread comes first: of one without an open run, no run is read.
OPEN_RUNS = (
    f"{_RUN} JOIN activity a ON a.n = r.n WHERE a.n = ? AND a.status IN ({_OPEN})"
    f" AND r.status IN ({_OPEN}) ORDER BY r.seq, r.id"
)
_SPENT = msgspec.json.Decoder(Spent)
_ERROR = msgspec.json.Decoder(RunError)
_SEND = msgspec.json.Decoder(SendEntry)


def find_run(
    connection: Connection, run_id: str, owner: str | None, thread_id: str, *, inbox: bool
) -> RunRecord | None:
    """Returns a run of any thread, of one of an owner, or of one thread; None without one."""
    condition, values = "", [run_id]
    if owner is not None:
        condition, values = f"{condition} AND t.owner = ?", [*values, owner]
    if thread_id:
        condition, values = f"{condition} AND t.id = ?", [*values, thread_id]
    row = _run_row(connection, condition, values)
    if row is not None or not inbox:
        return _run(row) if row is not None else None
    waiting = connection.execute(
        f"SELECT t.id, t.agent, i.body FROM {connection.inbox} AS i JOIN thread t ON t.n = i.n"  # noqa: S608 - of constants
        f" WHERE i.run_id = ?{condition} ORDER BY i.number",
        values,
    )
    for thread, agent, body in waiting.fetchall():
        try:
            return promised(_SEND.decode(body), thread, agent)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # an entry of another kind, or a damaged one
    # It may have left the inbox since it was not there.
    row = _run_row(connection, condition, values)
    return _run(row) if row is not None else None


def _run_row(connection: Connection, condition: str, values: Sequence[Any]) -> Any:
    return connection.execute(f"{RUN_BY_ID}{condition} ORDER BY r.n LIMIT 1", values).fetchone()


def list_runs(
    connection: Connection,
    number: int,
    thread_id: str,
    limit: int,
    after: str,
    order: Direction,
) -> Page[RunRecord]:
    """Returns a page of the runs of thread `number`."""
    sql, values = runs_statement(number, limit, after, order)
    runs = [_run(row) for row in connection.execute(sql, values).fetchall()]
    page = runs[:limit] if limit >= 0 else runs
    has_more = len(page) < len(runs)
    return Page(page, cursor(f"runs {order}", *place_of(page[-1])) if page and has_more else "")


def list_open_runs(connection: Connection, number: int) -> list[RunRecord]:
    """Returns the runs of thread `number` that have not ended."""
    return [_run(row) for row in connection.execute(OPEN_RUNS, (number,)).fetchall()]


def runs_statement(
    number: int, limit: int, after: str, order: Direction
) -> tuple[str, Sequence[object]]:
    """Returns the statement that reads one run more than a page, and its values."""
    condition, values = "", list[object]([number])
    if after:
        condition = f" AND (r.seq, r.id) {'<' if order == 'desc' else '>'} (?, ?)"
        values += key_at(after, f"runs {order}", tuple[int, str])
    values.append(limit + 1 if limit >= 0 else NO_LIMIT)
    return f"{_RUN} WHERE r.n = ?{condition} ORDER BY r.seq {order}, r.id {order} LIMIT ?", values


def _run(row: Sequence[Any]) -> RunRecord:
    thread_id, id, agent, agent_hash, status, first_seq, last_seq, seq, message_id = row[:9]
    queued_at, started_at, ended_at, stop_reason, spent, error, metadata = row[9:]
    used = _SPENT.decode(spent) if spent is not None else Spent()
    return RunRecord(
        id=id,
        thread_id=thread_id,
        agent=agent,
        agent_hash=agent_hash,
        status=status,
        seq=seq,
        first_seq=first_seq,
        last_seq=last_seq,
        message_id=message_id,
        queued_at=queued_at,
        started_at=started_at,
        ended_at=ended_at,
        steps=used.steps,
        usage=used.usage,
        cost=used.cost,
        stop_reason=stop_reason or None,
        error=_ERROR.decode(error) if error is not None else None,
        metadata=decode_metadata(metadata) if metadata is not None else {},
    )


def list_calls(connection: Connection, query: CallQuery) -> Page[WaitingCall]:
    """Returns a page of the calls that wait for an answer."""
    sql, values = calls_statement(query, connection.inbox)
    rows = connection.execute(sql, values).fetchall()
    page = rows[: query.limit] if query.limit >= 0 else rows
    has_more = len(page) < len(rows)
    next = cursor("calls", *page[-1][:3]) if page and has_more else ""
    return Page([call for row in page if (call := _call(row)) is not None], next)


def calls_statement(query: CallQuery, inbox: str) -> tuple[str, Sequence[object]]:
    """Returns the statement that reads one call more than a page, and its values."""
    conditions, values = list[str](), list[object]()
    for column, value in (
        ("c.owner", query.owner),
        ("t.id", query.thread_id or None),
        ("c.agent", query.agent or None),
        ("c.awaits", query.awaits),
    ):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.after:
        conditions.append("(c.since, c.n, c.call_id) > (?, ?, ?)")
        values += key_at(query.after, "calls", tuple[float, int, str])
    conditions.append(
        f"NOT EXISTS (SELECT 1 FROM {inbox} AS i WHERE i.n = c.n AND i.call_id = c.call_id)"  # noqa: S608
    )
    values.append(query.limit + 1 if query.limit >= 0 else NO_LIMIT)
    index = "call_since" if query.owner is None else "call_owner"
    tables = (
        f"call c INDEXED BY {index} CROSS JOIN thread t CROSS JOIN event e"
        " LEFT JOIN due d ON d.n = c.n AND d.kind = 'approval' AND d.id = ''"
    )
    conditions += ["t.n = c.n", f"e.position = (c.n << {SEQ_BITS}) + c.seq"]
    sql = f"""
        SELECT c.since, c.n, c.call_id, c.run_id, c.agent, c.awaits, c.seq, t.id, c.owner,
            d.at, e.body
        FROM {tables} WHERE {" AND ".join(conditions)}
        ORDER BY c.since, c.n, c.call_id LIMIT ?
    """  # noqa: S608 - it is made of constants
    return sql, values


def _call(row: Sequence[Any]) -> WaitingCall | None:
    since, _, call_id, run_id, agent, awaits, seq, thread_id, owner, expires_at, body = row
    try:
        event = decode_recorded(cast("bytes", body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # a repair of the thread takes it away
    if not isinstance(event, ToolCallRequested):
        return None
    record = CallRecord(call_id, run_id, agent, awaits, seq, since)
    return waiting_call(record, event, thread_id, owner, expires_at)
