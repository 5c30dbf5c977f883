"""The files of the index: the database with its rows, and which file holds the vectors.

All of the content follows from the journal. A file that is damaged, or of another version, is
therefore set aside and made again, and never blocks a conversation.
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
from treadle.journal.sqlite_file import TOO_MANY_OPEN, has_too_many_open
from treadle.memory.archive.query import KINDS, ROLES
from treadle.memory.archive.words import TOKENIZER, indexed

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Columns, VectorFile

APPLICATION_ID = 0x74726461  # "trda"; identifies the file, so that no other database is removed
VERSION = 1
BUSY_SECONDS = 30.0

DELETES_WORDS = sqlite3.sqlite_version_info >= (3, 42)
"""Whether FTS5 removes the words of a row with the row, by its option `secure-delete`."""

SELECT = (
    "SELECT p.n, p.id, p.text, p.kind, t.thread_id, p.seq, p.at, p.run_id, p.role, p.tags"
    " FROM passage p JOIN source t ON t.s = p.s"
)
"""Reads rows for `passage_in`."""

Written = tuple[int, int]
"""The number of an owner and its count of writes. The pair never occurs a second time."""

_TAGS = msgspec.json.Decoder(tuple[str, ...])

_SQLITE = b"SQLite format 3\0"
_HEAD = 72
"""The length of the header up to the application id; see https://sqlite.org/fileformat.html"""

_REMAINS = (
    "CREATE TABLE remains (id INTEGER PRIMARY KEY AUTOINCREMENT, slot INTEGER, words INTEGER)"
)
"""Removed rows of which the files may still contain the vector in `slot`, or the words."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_GONE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class IndexDamaged(ArchiveFailed):
    """The file of the index cannot be used any longer, and must be made again."""


class IndexGone(ArchiveFailed):
    """The file of the index was removed or cannot be reached, and must be opened again."""


@contextmanager
def typed_errors() -> Generator[None]:
    """Turns the errors of sqlite3 and of files into `ArchiveFailed`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        # Missing tables are damage too: something other than treadle has written the file.
        if code in _DAMAGE or _is_foreign(error):
            raise IndexDamaged(f"The index of the archive is damaged: {error}.") from error
        if code in _GONE and has_too_many_open():
            raise ArchiveFailed(
                f"The index of the archive cannot be opened: {TOO_MANY_OPEN}."
            ) from error
        kind = IndexGone if code in _GONE else ArchiveFailed
        raise kind(
            f"The index of the archive failed: {error}. No data is lost: the index is "
            "made of the journal."
        ) from error
    except OSError as error:
        raise ArchiveFailed(
            f"A file of the archive failed: {error.strerror or error}. No data is lost: the "
            "index is made of the journal."
        ) from error


def _is_foreign(error: sqlite3.Error) -> bool:
    # SQLite before 3.42 cannot read an index that a later one has written with `secure-delete`.
    foreign = ("no such", "invalid fts5 file format")
    return isinstance(error, sqlite3.OperationalError) and any(
        text in str(error) for text in foreign
    )


def connect(path: Path | None) -> sqlite3.Connection:
    """Opens the database `path`, or one in memory, for writing; creates missing tables.

    Raises `IndexDamaged` for a file that is not an index of this version, otherwise
    `ArchiveFailed`.
    """
    with typed_errors():
        if path is not None:
            # SQLite would create it with the umask's mode; conversations are not for other users.
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
    """Opens the file for reading, in parallel to the connection that writes."""
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
        raise _foreign_database()
    if version != VERSION:
        raise IndexDamaged(f"The index of the archive is of version {version}, not {VERSION}.")
    # After the checks above: this writes to the file, which must not happen to the database of
    # another program. The checks read the header, so they work even if the log is damaged.
    connection.execute("PRAGMA journal_mode = wal")
    # A commit must be on the disk before it returns. Otherwise a power failure could undo a
    # deletion after the slot of its vector has been given to another row.
    connection.execute("PRAGMA synchronous = full")
    # Overwrites deleted content, so that a deleted conversation cannot be read from the file.
    connection.execute("PRAGMA secure_delete = on")
    _prepare_deletions(connection)


def _prepare_deletions(connection: sqlite3.Connection) -> None:
    known = "SELECT count(*) FROM sqlite_master WHERE name = 'remains'"
    if not connection.execute(known).fetchone()[0]:
        # The index of an earlier version of treadle, which can contain words of deleted rows.
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute(known).fetchone()[0]:
            connection.execute(_REMAINS)
            connection.execute("INSERT INTO remains (words) VALUES (1)")
            connection.execute("INSERT INTO remains (slot, words) SELECT slot, 1 FROM free_slot")
        connection.execute("COMMIT")
    enabled = "SELECT count(*) FROM words_config WHERE k = 'secure-delete' AND v = 1"
    if DELETES_WORDS and not connection.execute(enabled).fetchone()[0]:
        connection.execute("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables:  # another process created them after the check in `_prepare`
        connection.execute("COMMIT")
        return
    schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    for statement in schema.replace("{tokenizer}", TOKENIZER).split(";\n"):
        connection.execute(statement)
    connection.execute(_REMAINS)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _foreign_database() -> ArchiveFailed:
    return ArchiveFailed(
        "The index of the archive belongs next to the journal, but that file is the database of "
        "another program; move it, or the journal."
    )


def remove_damaged(path: Path) -> bool:
    """Removes an index that was set aside, because deleted texts may be left in it.

    Returns whether an index in use exists.
    """
    with contextlib.suppress(OSError):  # it does not exist, or another program has it open
        path.with_name(f"{path.name}-damaged").unlink()
    return path.exists()


def set_aside(path: Path) -> None:
    """Renames a damaged index, and removes its log.

    Raises `ArchiveFailed` for the database of another program, which stays as it is.
    """
    with typed_errors(), contextlib.suppress(FileNotFoundError):
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_SQLITE) and head[-4:] != APPLICATION_ID.to_bytes(4, "big"):
            raise _foreign_database()
        path.replace(path.with_name(f"{path.name}-damaged"))
    # A new index must not replay the log of the old one.
    for end in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + end).unlink()


def written_of(connection: sqlite3.Connection, owner: str) -> Written:
    """Returns the count of writes of an owner; (0, 0) for an owner without threads."""
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
    """Returns the word for an owner (`o`), for its delegated work (`w`), or for a thread (`t`)."""
    return f"{letter}{number}{kind[0]}"


def role_word(role: Role | None) -> str:
    """Returns the word for a role."""
    return f"r{ROLES.index(role)}"


def tag_word(tag: str) -> str:
    """Returns the word for a tag: its hash in digits, because the stemmer would cut letters."""
    return f"g{int.from_bytes(blake2b(tag.encode(), digest_size=8).digest(), 'big')}"


def words_of(passage: Passage, owner: int, source: int, *, aside: bool) -> tuple[str, str]:
    """Returns the text and the scope of a row in the table `words`.

    FTS5 without content deletes a row only if it is given the values with which the row was
    inserted, so they must depend on nothing but the arguments.
    """
    kind = passage.kind
    # Messages between agents are found on their own thread only; their notes are for everyone.
    place = scope_word("w" if aside and kind == "message" else "o", owner, kind)
    scope = [place, scope_word("t", source, kind), role_word(passage.role)]
    return indexed(passage.text), " ".join([*scope, *map(tag_word, passage.tags)])


def json_array(values: Sequence[object]) -> str:
    """Returns values as JSON, which SQL reads with `json_each`.

    A list is one parameter that way, whereas SQLite limits the number of parameters.
    """
    return msgspec.json.encode(values).decode()


class VectorSpace(Struct, frozen=True):
    """The vectors of the index: by which embedder, of which length, and in which file."""

    embedder: str
    dimensions: int | None
    file: str


def space_of(connection: sqlite3.Connection) -> VectorSpace:
    """Returns the vector space of the index."""
    row = connection.execute("SELECT embedder, dimensions, file FROM vectors").fetchone()
    return VectorSpace(*row)


def require_same_embedder(space: VectorSpace, name: str) -> None:
    """Raises `ArchiveFailed` unless the vectors are by the embedder `name`."""
    if space.embedder != name:
        raise ArchiveFailed(
            f"Another process makes the vectors of this archive with {space.embedder!r}, this one "
            f"with {name!r}; pass the same embedder to both."
        )


class VectorFiles:
    """Opens the file of the vectors next to the index `path`, or memory if `path` is None.

    Imports numpy with the first vectors, because a program without an embedder may not have it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._open: dict[str, VectorFile] = {}

    def get(self, space: VectorSpace) -> "VectorFile":
        """Returns the vectors of a space whose dimensions are known."""
        if space.file not in self._open:
            path = self._path.with_name(space.file) if self._path is not None else None
            make = import_module("treadle.memory.archive.vectors").VectorFile
            self._open = {space.file: make(path, space.dimensions)}
        return self._open[space.file]

    def wipe(self, space: VectorSpace, slots: Sequence[int]) -> None:
        """Overwrites free slots on the disk; raises `OSError`."""
        if self._path is None:
            return
        size = 4 * (space.dimensions or 0)
        path = self._path.with_name(space.file)
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            for slot in slots:
                if slot * size < end:  # beyond the end, it was never written
                    file.seek(slot * size)
                    file.write(bytes(size))

    def columns(self, version: object) -> "Columns":
        """Returns empty columns for passages with vectors."""
        return import_module("treadle.memory.archive.vectors").Columns(version)
