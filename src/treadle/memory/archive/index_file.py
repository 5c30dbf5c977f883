"""The file of the index: opening it, its errors, and what becomes of a damaged one.

All in it follows from the journal. So a file that is damaged, or of another version, is put aside
and made anew, and never stands in the way of a conversation.
"""

import contextlib
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from treadle.domain.items import Role
from treadle.domain.passages import Kind, Passage
from treadle.errors import ArchiveFailed
from treadle.memory.archive.words import TOKENIZER, indexed

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Columns, VectorFile

APPLICATION_ID = 0x74726461  # "trda", so that another program's database is told apart
VERSION = 1
BUSY_SECONDS = 30.0

_SQLITE = b"SQLite format 3\0"
_HEAD = 72
"""The bytes of a database up to its application's number; see https://sqlite.org/fileformat.html"""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_GONE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class IndexDamaged(ArchiveFailed):
    """The file of the index cannot be used any more, and must be made again."""


class IndexGone(ArchiveFailed):
    """The file of the index was removed, or cannot be reached; open it again."""


@contextmanager
def typed_errors() -> Generator[None]:
    """Turns the errors of sqlite3 and of files into `ArchiveFailed`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        # Tables that are missing are damage too: whoever had the file last was no treadle.
        if code in _DAMAGE or _is_foreign(error):
            raise IndexDamaged(f"The index of the archive is damaged: {error}.") from error
        kind = IndexGone if code in _GONE else ArchiveFailed
        raise kind(
            f"The index of the archive failed: {error}. Nothing was lost: it is made of the "
            "journal."
        ) from error
    except OSError as error:
        raise ArchiveFailed(
            f"A file of the archive failed: {error.strerror or error}. Nothing was lost: it is "
            "made of the journal."
        ) from error


def _is_foreign(error: sqlite3.Error) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "no such" in str(error)


def connect(path: Path | None) -> sqlite3.Connection:
    """Opens the file, or a database in memory, ready to be written to; makes its tables.

    Raises `IndexDamaged` for what is no index of this version, else `ArchiveFailed`.
    """
    with typed_errors():
        if path is not None:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = _connection(path)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def reader(path: Path) -> sqlite3.Connection:
    """Opens the file for reading, beside the connection that writes."""
    with typed_errors():
        connection = _connection(path)
        try:
            connection.execute("PRAGMA query_only = on")
        except BaseException:
            connection.close()
            raise
        return connection


def _connection(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(
        path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        _make_tables(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise _of_another_program()
    if version != VERSION:
        raise IndexDamaged(f"The index of the archive is of version {version}, not {VERSION}.")
    # Only now: whose file it is stands in the file itself, also where its log is damaged.
    connection.execute("PRAGMA journal_mode = wal")
    # Slots of vectors are used again once the deletion of their rows cannot be undone any more.
    connection.execute("PRAGMA synchronous = full")
    # What is deleted is overwritten.
    connection.execute("PRAGMA secure_delete = on")


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables:  # another process was quicker
        connection.execute("COMMIT")
        return
    schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    for statement in schema.replace("{tokenizer}", TOKENIZER).split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _of_another_program() -> ArchiveFailed:
    return ArchiveFailed(
        "Where the index of the archive belongs, beside the journal, is the database of another "
        "program; move it, or the journal."
    )


def remove_damaged(path: Path) -> bool:
    """Removes a file that was put aside, so that nothing of a deletion stays in it.

    Returns whether there is one in use.
    """
    with contextlib.suppress(OSError):  # there is none, or somebody looks at it
        path.with_name(f"{path.name}-damaged").unlink()
    return path.exists()


def set_aside(path: Path) -> None:
    """Gives a damaged file another name, and removes the log that belongs to it.

    Raises `ArchiveFailed` for the database of another program, which is left as it is.
    """
    with typed_errors(), contextlib.suppress(FileNotFoundError):
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_SQLITE) and head[-4:] != APPLICATION_ID.to_bytes(4, "big"):
            raise _of_another_program()
        path.replace(path.with_name(f"{path.name}-damaged"))
    for end in ("-wal", "-shm"):
        with contextlib.suppress(OSError):  # without its file it is of no use to anybody
            path.with_name(path.name + end).unlink()


KINDS: tuple[Kind, ...] = ("archive", "message")
ROLES: tuple[Role | None, ...] = (None, "user", "assistant", "system", "developer")

_TAGS = msgspec.json.Decoder(tuple[str, ...])

SELECT = (
    "SELECT p.n, p.id, p.text, p.kind, t.thread_id, p.seq, p.at, p.run_id, p.role, p.tags"
    " FROM passage p JOIN source t ON t.s = p.s"
)


Written = tuple[int, int]
"""The number of an owner, and how often its threads were written; no owner has both again."""


def written_of(connection: sqlite3.Connection, owner: str) -> Written:
    """Returns how often an owner was written to; (0, 0) for one that has nothing."""
    row: Written | None = connection.execute(
        "SELECT o, writes FROM owner WHERE name = ?", (owner,)
    ).fetchone()
    return row or (0, 0)


def passage_in(row: tuple[object, ...]) -> Passage:
    """Returns the passage of a row of `SELECT`."""
    _, id, text, kind, thread_id, seq, at, run_id, role, tags = row
    return msgspec.convert(
        {
            "id": id,
            "text": text,
            "kind": KINDS[int(str(kind))],
            "thread_id": thread_id,
            "seq": seq,
            "created_at": at,
            "run_id": run_id,
            "role": ROLES[int(str(role))],
            "tags": _TAGS.decode(str(tags)),
        },
        Passage,
    )


def scope_word(letter: str, number: int, kind: Kind) -> str:
    """Returns the word that stands for an owner (`o`), what is aside (`w`), or a thread (`t`)."""
    return f"{letter}{number}{kind[0]}"


def role_word(role: Role | None) -> str:
    """Returns the word that stands for a role."""
    return f"r{ROLES.index(role)}"


def tag_word(tag: str) -> str:
    """Returns the word that stands for a tag: its hash in digits, because words lose endings."""
    return f"g{int.from_bytes(blake2b(tag.encode(), digest_size=8).digest(), 'big')}"


def words_of(passage: Passage, owner: int, source: int, *, aside: bool) -> tuple[str, str]:
    """Returns the text and the scope of a row in the table `words`, the same at any time."""
    kind = passage.kind
    # Only what agents say to each other is kept apart; what they note is for all.
    place = scope_word("w" if aside and kind == "message" else "o", owner, kind)
    scope = [place, scope_word("t", source, kind), role_word(passage.role)]
    return indexed(passage.text), " ".join([*scope, *map(tag_word, passage.tags)])


class VectorSpace(Struct, frozen=True):
    """Which vectors there are: whose, of which size, and in which file."""

    embedder: str
    dimensions: int | None
    file: str


def space_of(connection: sqlite3.Connection) -> VectorSpace:
    """Returns which vectors there are."""
    row = connection.execute("SELECT embedder, dimensions, file FROM vectors").fetchone()
    return VectorSpace(*row)


def require_embedder(space: VectorSpace, name: str) -> None:
    """Raises `ArchiveFailed` unless the vectors are those of the embedder `name`."""
    if space.embedder != name:
        raise ArchiveFailed(
            f"Another process makes the vectors of this archive with {space.embedder!r}, this one "
            f"with {name!r}; give both the same embedder."
        )


class VectorFiles:
    """Opens the file of the vectors beside the index `path`, or memory where that is None.

    numpy is imported with the first of them: without vectors, nobody needs it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._open: dict[str, VectorFile] = {}

    def get(self, space: VectorSpace) -> "VectorFile":
        """Returns the file of a space whose size is known."""
        if space.file not in self._open:
            path = self._path.with_name(space.file) if self._path is not None else None
            make = import_module("treadle.memory.archive.vectors").VectorFile
            self._open = {space.file: make(path, space.dimensions)}
        return self._open[space.file]

    def wipe(self, space: VectorSpace, slots: Sequence[int]) -> None:
        """Overwrites slots on the disk that nobody names; raises `OSError`."""
        if self._path is None:
            return
        size = 4 * (space.dimensions or 0)
        path = self._path.with_name(space.file)
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            for slot in slots:
                if slot * size < end:  # else it was never written
                    file.seek(slot * size)
                    file.write(bytes(size))

    def columns(self, version: object) -> "Columns":
        """Returns columns for the passages with vectors."""
        return import_module("treadle.memory.archive.vectors").Columns(version)
