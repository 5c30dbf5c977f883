"""Who uses the files of the journals in SQL: what changes in the transaction of another write."""

from collections.abc import Sequence

from treadle.journal.files import FileInfo, NewFile, unknown_file
from treadle.journal.sql_connection import SEQ_BITS, Connection


def note(connection: Connection, file: FileInfo, number: int, owner: str) -> None:
    """Notes that a thread uses a file, or an owner if `number` is 0."""
    connection.execute(
        "INSERT INTO file_use (id, owner, n, media_type, name, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (file.id, owner, number, file.media_type, file.name, file.created_at),
    )


def is_kept(connection: Connection, id: str) -> bool:
    """Returns whether a content is stored, which no other transaction removes then."""
    sql = "SELECT 1 FROM file WHERE id = ? /*! FOR KEY SHARE */"
    return connection.execute(sql, (id,)).fetchone() is not None


def keep(connection: Connection, file: FileInfo, content: bytes, number: int, owner: str) -> None:
    """Stores a content unless it is stored, and notes who uses it."""
    if not is_kept(connection, file.id):
        connection.execute(
            "INSERT INTO file (id, content) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (file.id, memoryview(content)),
        )
    note(connection, file, number, owner)


def begin(connection: Connection, files: Sequence[NewFile], number: int, owner: str) -> None:
    """Notes what a new thread uses, and stores what is new; raises `UnknownFile`."""
    for file in files:
        if file.content is not None:
            keep(connection, file.info, file.content, number, owner)
        elif is_kept(connection, file.info.id):
            note(connection, file.info, number, owner)
        else:
            raise unknown_file(file.info.id)


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
