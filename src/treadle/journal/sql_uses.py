"""Who uses the files of the journals in SQL: what changes in the transaction of another write."""

from collections.abc import Sequence

from treadle.journal.files import FileInfo
from treadle.journal.sql_connection import SEQ_BITS, Connection


def note(connection: Connection, file: FileInfo, number: int, owner: str) -> None:
    """Notes that a thread uses a file, or an owner if `number` is 0."""
    connection.execute(
        "INSERT INTO file_use (id, owner, n, media_type, name, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (file.id, owner, number, file.media_type, file.name, file.created_at),
    )


def fork(connection: Connection, source: int, target: int, owner: str) -> None:
    """Notes that a fork uses the files of its source."""
    connection.execute(
        "INSERT INTO file_use (id, owner, n, media_type, name, created_at)"
        " SELECT id, ?, ?, media_type, name, created_at FROM file_use"
        " WHERE n = ?",
        (owner, target, source),
    )


def end(connection: Connection, where: str, *values: object) -> None:
    """Ends uses, and removes the contents that have no other."""
    rows = connection.execute(f"SELECT id FROM file_use WHERE {where}", values).fetchall()  # noqa: S608 - of constants
    if rows:
        connection.execute(f"DELETE FROM file_use WHERE {where}", values)  # noqa: S608
        sweep(connection, [id for (id,) in rows])


def release(connection: Connection, number: int, ids: Sequence[str]) -> None:
    """Ends the uses of files that neither the events of a thread nor its inbox mention."""
    start = number << SEQ_BITS
    for id in ids:
        (is_mentioned,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM event WHERE position > ? AND position < ?"
            " AND instr(CAST(body AS TEXT), ?) > 0)"
            " OR EXISTS (SELECT 1 FROM inbox WHERE n = ? AND instr(CAST(body AS TEXT), ?) > 0)",
            (start, (number + 1) << SEQ_BITS, id, number, id),
        ).fetchone()
        if not is_mentioned:
            end(connection, "id = ? AND n = ?", id, number)


def sweep(connection: Connection, ids: Sequence[str]) -> None:
    """Removes the contents among `ids` that have no use."""
    # A use that is noted meanwhile holds its content: it is waited for, and seen then.
    connection.execute(
        "SELECT id FROM file WHERE id IN (SELECT value FROM json_each(?))"
        " /*! ORDER BY id FOR UPDATE */",
        (connection.array(ids),),
    )
    for id in ids:
        connection.execute(
            "DELETE FROM file WHERE id = ? AND NOT EXISTS (SELECT 1 FROM file_use WHERE id = ?)",
            (id, id),
        )
