"""The events of all threads in SQL, in the order of their commits."""

from collections.abc import Sequence
from typing import Any

import msgspec

from treadle.domain.desk import DeskEvent, ThreadCreated, ThreadDeleted, owner_mark
from treadle.domain.envelope import decode_recorded
from treadle.journal.base import ChangeQuery, Changes, position_at
from treadle.journal.pulse import SCANNED
from treadle.journal.sql_connection import SEQ_BITS, Connection

CHANGES = f"""
    SELECT c.number, c.seq, c.type, c.gone, t.id, t.owner, t.parent, CAST(e.body AS BLOB)
    FROM change c LEFT JOIN thread t ON t.n = c.n
    LEFT JOIN event e ON e.position = (c.n << {SEQ_BITS}) + c.seq AND c.seq > 0
    WHERE c.number > ? AND c.number <= ?
"""  # noqa: S608 - it is made of constants


def read_changes(connection: Connection, query: ChangeQuery, newest: int) -> Changes:
    """Returns changes behind a position, up to the `newest`; looks at a bounded number of them."""
    if not query.after:
        return Changes((), str(newest))
    start = position_at(query.after, newest)
    end = min(start + SCANNED, newest)  # the gaps are those of groups that were rolled back
    sql, values = CHANGES, list[object]([start, end])
    if query.types:
        sql += f" AND c.type IN ({','.join('?' * len(query.types))})"
        values += query.types
    if query.owner is not None:
        sql += " AND (t.owner = ? OR substr(c.gone, 1, 32) = ?)"
        values += [query.owner, owner_mark(query.owner)]
    rows = connection.execute(f"{sql} ORDER BY c.number LIMIT ?", (*values, query.limit)).fetchall()
    events = [one for row in rows if (one := _event(row)) is not None]
    last = rows[-1][0] if len(rows) >= query.limit else end
    return Changes(events, str(last), last == newest)


def _event(row: Sequence[Any]) -> DeskEvent | None:
    number, seq, type, gone, thread_id, owner, parent, body = row
    position = str(number)
    if gone is not None:
        return DeskEvent(thread_id=gone[33:], event=ThreadDeleted(), position=position)
    if thread_id is None:
        return None  # it was deleted since
    try:
        event = decode_recorded(body) if seq else ThreadCreated()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
        return None  # a damaged event: its thread is set aside, the others are not
    if event.type != type:
        return None  # its content was removed
    return DeskEvent(
        thread_id=thread_id, owner=owner, parent=parent, event=event, position=position
    )
