"""The files of the journals in SQL, in the same database: a backup contains them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from treadle.journal.base import not_found
from treadle.journal.files import FileInfo
from treadle.journal.sql_connection import Connection
from treadle.journal.sql_uses import end, is_kept, keep, note, sweep
from treadle.journal.sql_writes import Change, number_of

T = TypeVar("T")

_INFO = """
    SELECT u.id, u.media_type, length(f.content), u.name, u.created_at
    FROM file_use u JOIN file f ON f.id = u.id
"""
_OLDEST = "ORDER BY u.created_at, u.name LIMIT 1"


class Read(Protocol):
    """Returns what a function of a connection for reading returns."""

    async def __call__(self, read: Callable[[Connection], T], /) -> T: ...


Write = Callable[[Change], Awaitable[object]]
"""Makes a change, and returns its result once it is durable."""


class SqlFiles:
    """Fulfils `FileStore` with two tables of the journal's database."""

    def __init__(self, read: Read, write: Write, on_removed: Callable[[], Awaitable[None]]) -> None:
        self._read = read
        self._write = write
        self._on_removed = on_removed

    async def put(
        self, file: FileInfo, content: bytes, *, owner: str | None = None, thread_id: str = ""
    ) -> None:
        """Stores a content, and notes who uses it."""

        def change(connection: Connection) -> None:
            user = _user(connection, thread_id, owner) if thread_id else (0, owner or "")
            keep(connection, file, content, *user)

        await self._write(Change(change, ordered=False))

    async def use(self, ids: Sequence[str], thread_id: str) -> Mapping[str, FileInfo]:
        """Notes that a thread uses files."""

        def change(connection: Connection) -> Mapping[str, FileInfo]:
            number, owner = _user(connection, thread_id, None)
            found: dict[str, FileInfo] = {}
            for id in ids:
                where = "WHERE u.id = ? AND u.owner = ?"
                row = connection.execute(f"{_INFO} {where} {_OLDEST}", (id, owner)).fetchone()
                if row is not None and is_kept(connection, id):
                    found[id] = FileInfo(*row)
                    note(connection, found[id], number, owner)
            return found

        found = await self._write(Change(change, ordered=False))
        return cast("Mapping[str, FileInfo]", found)

    async def info(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> FileInfo | None:
        """Returns a file."""

        def read(connection: Connection) -> FileInfo | None:
            return _info(connection, id, owner, thread_id)

        return await self._read(read)

    async def content(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> bytes | None:
        """Returns the content of a file."""

        def read(connection: Connection) -> bytes | None:
            if _info(connection, id, owner, thread_id) is None:
                return None
            row = connection.execute("SELECT content FROM file WHERE id = ?", (id,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._read(read)

    async def drop(self, id: str, *, owner: str) -> bool:
        """Ends the use of an owner."""

        def change(connection: Connection) -> bool:
            sql = "DELETE FROM file_use WHERE id = ? AND owner = ? AND n = 0 RETURNING id"
            rows = connection.execute(sql, (id, owner)).fetchall()
            sweep(connection, [id])
            return bool(rows)

        is_dropped = bool(await self._write(Change(change, ordered=False)))
        await self._on_removed()
        return is_dropped

    async def drop_owner(self, owner: str) -> None:
        """Ends all uses of an owner, except those of threads."""

        def change(connection: Connection) -> None:
            end(connection, "n = 0 AND owner = ?", owner)

        await self._write(Change(change, ordered=False))
        await self._on_removed()


def _user(connection: Connection, thread_id: str, owner: str | None) -> tuple[int, str]:
    number = number_of(connection, thread_id)
    (user,) = connection.execute("SELECT owner FROM thread WHERE n = ?", (number,)).fetchone()
    if owner not in {None, user}:
        raise not_found(thread_id)
    return number, user


def _info(connection: Connection, id: str, owner: str | None, thread_id: str) -> FileInfo | None:
    where, values = "WHERE u.id = ?", list[object]([id])
    if owner is not None:
        where += " AND u.owner = ?"
        values.append(owner)
    if thread_id:
        where += " AND u.n = ?"
        values.append(_user(connection, thread_id, owner)[0])
    row = connection.execute(f"{_INFO} {where} {_OLDEST}", values).fetchone()
    return None if row is None else FileInfo(*row)
