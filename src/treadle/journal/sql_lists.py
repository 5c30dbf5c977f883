"""Lists of threads in SQL: which index is read, and what is filtered then.

A list is read in the order of an index, which finds a page soon if many threads pass the filters.
If few do, they are found by an index of a filter instead, and sorted. SQLite would have to guess
which is the case, so it is counted here, up to `FEW`, and the statements prescribe their plans.
`tests/journal/test_plans.py` asserts these.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from treadle.domain.cursor import key_at
from treadle.journal.base import ThreadQuery
from treadle.journal.labels import labels_of
from treadle.journal.sql_connection import NO_LIMIT, Connection

FEW = 1000
"""Threads that are rather sorted than looked for in the order of the list."""

COLUMNS = """t.id, t.agent, t.owner, t.metadata, a.title, a.status, t.created_at, a.updated_at,
    t.forked_from, t.work, t.memory, t.key, t.key_digest, t.expires_at, t.store"""

UNFINISHED = """
    SELECT t.id, a.status, a.jobs FROM (
        SELECT n FROM activity
            WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling')
        UNION SELECT n FROM activity INDEXED BY activity_jobs WHERE jobs > 0
    ) AS one CROSS JOIN activity a CROSS JOIN thread t WHERE a.n = one.n AND t.n = one.n
    ORDER BY a.n
"""


SPENDING = """
    SELECT CAST(coalesce(sum(tokens), 0) AS bigint), coalesce(sum(cost), 0.0) FROM spending
    WHERE owner = ? AND slot >= ? AND slot < ?
"""

DUE = """
    SELECT d.at, d.n, t.id, d.kind, d.id, d.body
    FROM due d INDEXED BY due_at CROSS JOIN thread t
    WHERE (d.at, d.kind, d.id, d.n) > (?, ?, ?, ?) AND d.kind = coalesce(?, d.kind) AND t.n = d.n
    ORDER BY d.at, d.kind, d.id, d.n LIMIT ?
"""
DUE_OF_OWNER = """
    SELECT d.at, d.n, t.id, d.kind, d.id, d.body
    FROM thread t INDEXED BY thread_owner CROSS JOIN due d
    WHERE (d.at, d.kind, d.id, d.n) > (?, ?, ?, ?) AND d.kind = coalesce(?, d.kind)
    AND t.owner = ? AND d.n = t.n
    ORDER BY d.at, d.kind, d.id, d.n LIMIT ?
"""


class Statement(NamedTuple):
    """A statement and its values."""

    sql: str
    values: Sequence[object]


class _Source(NamedTuple):
    """The threads that pass a filter: a select of their numbers, and the same as a condition."""

    numbers: str
    condition: str
    values: Sequence[object]


def select_threads(connection: Connection, query: ThreadQuery) -> Statement:
    """Returns the statement that reads one thread more than a page of the list."""
    sources = _sources(query)
    return statement(query, _smallest(connection, sources), sources)


def statement(
    query: ThreadQuery, source: int | None, sources: "Sequence[_Source] | None" = None
) -> Statement:
    """Returns the statement that starts from the filter number `source`, or from the order."""
    sources = _sources(query) if sources is None else sources
    column, n = ("a.updated_at", "a.n")
    if query.order.endswith("created"):
        column, n = "t.created_at", "t.n"
    is_descending = query.order.startswith("-")
    if source is None:
        tables, joined, values = _tables_in_order(query), "t.n = a.n", list[object]()
    else:
        tables = f"({sources[source].numbers}) AS one CROSS JOIN activity a CROSS JOIN thread t"
        joined = "a.n = one.n AND t.n = one.n"
        values = list(sources[source].values)
    listed = "t.memory != ''" if query.memories else "a.listed"
    conditions: list[str] = [joined, "t.parent = ?" if query.parent else listed]
    values += [query.parent] if query.parent else []
    if query.owner is not None:
        conditions.append("t.owner = ?" if query.order.endswith("created") else "a.owner = ?")
        values.append(query.owner)
    for number, one in enumerate(sources):
        if number != source:
            conditions.append(one.condition)
            values += one.values
    if query.after:
        conditions.append(f"({column}, {n}) {'<' if is_descending else '>'} (?, ?)")
        values += key_at(query.after, query.order, tuple[float, int])
    direction = "DESC" if is_descending else "ASC"
    values.append(query.limit + 1 if query.limit >= 0 else NO_LIMIT)
    return Statement(
        f"SELECT {COLUMNS}, {column}, {n} FROM {tables} WHERE {' AND '.join(conditions)}"  # noqa: S608 - it is made of constants
        f" ORDER BY {column} {direction}, {n} {direction} LIMIT ?",
        values,
    )


def _tables_in_order(query: ThreadQuery) -> str:
    """Returns the tables so that they are read in the order of the list."""
    if query.order.endswith("updated"):
        index = "activity_updated" if query.owner is None else "activity_owner"
        return f"activity a INDEXED BY {index} CROSS JOIN thread t"
    index = "thread_created" if query.owner is None else "thread_owner"
    return f"thread t INDEXED BY {index} CROSS JOIN activity a"


def _sources(query: ThreadQuery) -> list[_Source]:
    sources: list[_Source] = []
    if query.memories:  # their ids begin with this word, see `shared_id`
        numbers = "SELECT n FROM thread WHERE id > 'memory_' AND id < 'memory`'"
        sources.append(_Source(numbers, "t.memory != ''", []))
    if query.parent:
        sources.append(
            _Source(
                "SELECT n FROM thread WHERE parent != '' AND parent = ?",
                "t.parent = ?",
                [query.parent],
            )
        )
    if query.status:
        marks = ",".join("?" * len(query.status))
        owned, values = "", list[object](query.status)
        if query.owner is not None:
            owned, values = "owner = ? AND ", [query.owner, *values]
        sources.append(
            _Source(
                f"SELECT n FROM activity WHERE {owned}status IN ({marks})",  # noqa: S608
                f"a.{owned}a.status IN ({marks})" if owned else f"a.status IN ({marks})",
                values,
            )
        )
    numbers = "SELECT n FROM label WHERE name = ? AND value = ?"
    condition = "EXISTS (SELECT 1 FROM label WHERE name = ? AND value = ? AND label.n = a.n)"
    labels = labels_of(query.agent, query.metadata)
    sources += [_Source(numbers, condition, label) for label in labels]
    return sources


def _smallest(connection: Connection, sources: Sequence[_Source]) -> int | None:
    """Returns the filter that the fewest threads pass, or None if even that lets many pass."""
    smallest, least = None, FEW + 1
    for number, source in enumerate(sources):
        (count,) = connection.execute(
            f"SELECT count(*) FROM ({source.numbers} LIMIT ?) AS one",  # noqa: S608
            (*source.values, least),
        ).fetchone()
        if count < least:
            smallest, least = number, count
    return smallest


def key_of(row: tuple[Any, ...]) -> tuple[float, int]:
    """Returns the sort key of a row."""
    return row[-2], row[-1]
