"""Writes the index of the archive; each change is one transaction.

For use in one thread, which may wait for another process to finish its transaction.
"""

import os
import sqlite3
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from treadle.domain.passages import Passage
from treadle.journal.base import ThreadMark
from treadle.journal.sqlite_file import empty_log
from treadle.memory.archive.embedders import changed_size
from treadle.memory.archive.index_file import (
    DELETES_WORDS,
    SELECT,
    VectorFiles,
    VectorSpace,
    Written,
    connect,
    json_array,
    passage_in,
    require_same_embedder,
    space_of,
    typed_errors,
    words_of,
    written_of,
)
from treadle.memory.archive.pages import Page, Statistics
from treadle.memory.archive.query import KINDS, ROLES

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix


class Source(Struct, frozen=True):
    """A thread of the journal; `aside` if an agent works on it for a run of another thread."""

    thread_id: str
    owner: str
    number: int
    aside: bool = False


class Known(Struct, frozen=True):
    """The state of a thread in the index: up to event `seq`, recorded at the time `at`."""

    number: int
    seq: int
    at: float


class Unembedded(Struct, frozen=True):
    """The text of the row `n`, which has no vector yet."""

    n: int
    text: str


_HEX = "[0-9a-f]"

MERGED_PAGES = 256
"""How many pages of the full-text index one call of `tidy` merges."""

_Row = tuple[int, int, int, int | None, int]
"""A row that is about to be removed: n, o, s, slot, aside."""


class Index:
    """Writes the index in the file `path`, or in memory if `path` is None.

    All methods raise `IndexDamaged` or `IndexGone` if the file cannot be used any longer, and
    `ArchiveFailed` for other errors.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.connection = connect(path)
        self.files = VectorFiles(path)
        self._embedder = ""
        self._merging = 0

    def close(self) -> None:
        """Closes the file."""
        with typed_errors():
            self.connection.close()

    # Threads and what they add

    def sources(self, owner: str | None = None) -> dict[str, Known]:
        """Returns the threads in the index, of an owner or of all owners, by their ids."""
        where = "" if owner is None else " WHERE o = (SELECT o FROM owner WHERE name = ?)"
        with typed_errors():
            rows = self.connection.execute(
                f"SELECT thread_id, number, seq, at FROM source{where}",  # noqa: S608 - of constants
                () if owner is None else (owner,),
            )
            return {thread_id: Known(*known) for thread_id, *known in rows.fetchall()}

    def settled(self, owner: str, marks: Iterable[ThreadMark]) -> Written | None:
        """Returns the owner's count of writes if the index matches `marks` exactly, or None."""
        with typed_errors():
            # Before the threads are read: a write of another process in between then makes the
            # count too low, and a later search reads again. The other order would miss it.
            written = written_of(self.connection, owner)
        known = self.sources(owner)
        there = {id: (source.number, source.seq) for id, source in known.items()}
        return written if there == {m.id: (m.number, m.seq) for m in marks if m.seq} else None

    def apply(self, source: Source, page: Page, vectors: Mapping[str, "Matrix"]) -> int:
        """Applies a page of events; returns the last event of the thread that is in the index.

        If the page does not follow the last event in the index, because another process was
        faster, nothing changes. `vectors` are the known vectors by the ids of their passages.
        """
        with self._change() as connection:
            s, o, seq = self._source(connection, source)
            if seq != page.after:
                return seq
            passages = self._new(connection, s, page)
            slots = self._store(connection, [vectors.get(one.id) for one in passages])
            # After `_store`: a slot that this transaction frees must not be written to before it
            # commits. If it fails, the row of the slot is back, and needs its vector.
            self._remove_passages(connection, s, page.removed)
            if page.forgotten:
                self._remove_events(connection, s, page.forgotten)
            self._insert(connection, source, (s, o), passages, slots)
            connection.execute(
                "UPDATE source SET seq = ?, at = ? WHERE s = ?", (page.until, page.at, s)
            )
            return page.until

    def drop_events(self, thread_id: str, events: Sequence[int]) -> None:
        """Removes what these events of a thread added, if the index has it."""
        with self._change() as connection:
            row = connection.execute(
                "SELECT s FROM source WHERE thread_id = ?", (thread_id,)
            ).fetchone()
            if row is not None:
                self._remove_events(connection, row[0], events)
                connection.execute(
                    "UPDATE owner SET writes = writes + 1"
                    " WHERE o = (SELECT o FROM source WHERE s = ?)",
                    row,
                )

    def drop(self, thread_ids: Iterable[str]) -> None:
        """Removes threads with all their passages."""
        with self._change() as connection:
            for thread_id in thread_ids:
                row = connection.execute(
                    "SELECT s FROM source WHERE thread_id = ?", (thread_id,)
                ).fetchone()
                if row is not None:
                    self._drop(connection, row[0])
            connection.execute("DELETE FROM owner WHERE o NOT IN (SELECT o FROM source)")

    @property
    def untidy(self) -> bool:
        """Whether deleted texts or their vectors may be left in the files."""
        with typed_errors():
            query = "SELECT EXISTS (SELECT 1 FROM remains)"
            return bool(self.connection.execute(query).fetchone()[0])

    def tidy(self) -> bool:
        """Overwrites remains of deleted passages in the files; returns whether none is left.

        Call it until it returns true: each call writes about `MERGED_PAGES` pages, so that other
        operations can run in between.
        """
        try:
            with self._change() as connection:
                (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM remains").fetchone()
                self._wipe_slots(connection)
                # Rows above `done` were removed after the merge began, which leaves their words.
                done = self._merge_words(connection, last)
                connection.execute("DELETE FROM remains WHERE id <= ?", (done,))
        except BaseException:
            self._merging = 0  # what it began may have been rolled back
            raise
        if self.untidy:
            return False
        with typed_errors():
            empty_log(self.connection)  # if another process reads it, a later call empties it
        return True

    def _wipe_slots(self, connection: sqlite3.Connection) -> None:
        """Overwrites vectors of removed rows; a free slot keeps its vector until it is used."""
        slots = connection.execute(
            "SELECT DISTINCT slot FROM remains JOIN free_slot USING (slot) ORDER BY slot"
        ).fetchall()
        space = space_of(connection)
        if slots and space.dimensions is not None:
            self.files.wipe(space, [slot for (slot,) in slots])
            connection.execute("UPDATE remains SET slot = NULL WHERE slot IS NOT NULL")

    def _merge_words(self, connection: sqlite3.Connection, last: int) -> int:
        """Merges a part of the full-text index; returns up to which row of `remains` it is done.

        Without `secure-delete`, FTS5 keeps the words of a deleted row until its segments are
        merged. A negative number of pages begins a merge of all segments, and a positive one
        continues it; it is complete once it changes fewer than two rows. See
        https://sqlite.org/fts5.html#the_merge_command
        """
        if not self._merging:
            query = "SELECT EXISTS (SELECT 1 FROM remains WHERE words)"
            if not connection.execute(query).fetchone()[0]:
                return last
        pages = MERGED_PAGES if self._merging else -MERGED_PAGES
        before = connection.total_changes
        connection.execute("INSERT INTO words (words, rank) VALUES ('merge', ?)", (pages,))
        if connection.total_changes - before < 2:
            done, self._merging = self._merging or last, 0
            return done
        self._merging = self._merging or last
        return 0

    def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns the passage `passage_id` of an owner, once for each thread that has it."""
        with typed_errors():
            rows = self.connection.execute(
                f"{SELECT} JOIN owner w ON w.o = p.o"
                " WHERE p.id = ? AND p.kind = 0 AND w.name = ? ORDER BY p.n",
                (passage_id, owner),
            ).fetchall()
        return [passage_in(row) for row in rows]

    def statistics(self, owner: str) -> Statistics:
        """Returns the size of an owner's part of the index."""
        with typed_errors():
            (counted,) = self.connection.execute(
                "SELECT json_array(count(*) FILTER (WHERE kind = 0),"
                " count(*) FILTER (WHERE kind = 1), count(DISTINCT s),"
                " count(*) FILTER (WHERE slot IS NULL))"
                " FROM passage WHERE o = (SELECT o FROM owner WHERE name = ?)",
                (owner,),
            ).fetchone()
        return Statistics(*msgspec.json.decode(counted, type=list[int]))

    def _source(self, connection: sqlite3.Connection, source: Source) -> tuple[int, int, int]:
        row = connection.execute(
            "SELECT s, o, seq, number FROM source WHERE thread_id = ?", (source.thread_id,)
        ).fetchone()
        if row is not None and row[3] == source.number:
            return row[0], row[1], row[2]
        if row is not None:
            self._drop(connection, row[0])  # a deleted thread had the same id
        connection.execute("INSERT OR IGNORE INTO owner (name) VALUES (?)", (source.owner,))
        (o,) = connection.execute("SELECT o FROM owner WHERE name = ?", (source.owner,)).fetchone()
        cursor = connection.execute(
            "INSERT INTO source (o, thread_id, number, aside, seq, at) VALUES (?, ?, ?, ?, 0, 0)",
            (o, source.thread_id, source.number, source.aside),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid, o, 0

    def _new(self, connection: sqlite3.Connection, s: int, page: Page) -> list[Passage]:
        """Returns the passages of a page that are not in the index yet."""
        ids = [one.id for one in page.added if one.kind == "archive"]
        known = connection.execute(
            "SELECT id FROM passage WHERE s = ? AND kind = 0"
            " AND id IN (SELECT value FROM json_each(?))",
            (s, json_array(ids)),
        )
        twice = {id for (id,) in known.fetchall()} - set(page.removed) if ids else set[str]()
        return [one for one in page.added if one.kind == "message" or one.id not in twice]

    def _insert(
        self,
        connection: sqlite3.Connection,
        source: Source,
        place: tuple[int, int],
        passages: Sequence[Passage],
        slots: Sequence[int | None],
    ) -> None:
        s, o = place
        (first,) = connection.execute(
            "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'passage'"
        ).fetchone()
        numbered = list(enumerate(passages, first))
        stamps = self._stamps(connection, slots)
        connection.executemany(
            "INSERT INTO passage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    n, o, s, one.seq, KINDS.index(one.kind), ROLES.index(one.role), one.created_at,
                    slot, stamp, one.id, one.run_id,
                    json_array(one.tags), one.text,
                )
                for (n, one), slot, stamp in zip(numbered, slots, stamps, strict=True)
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO words (rowid, text, scope) VALUES (?, ?, ?)",
            [(n, *words_of(one, o, s, aside=source.aside)) for n, one in numbered],
        )
        connection.execute(
            "UPDATE owner SET passages = passages + ?, writes = writes + 1 WHERE o = ?",
            (len(numbered), o),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO tag VALUES (?, ?, ?)",
            [(o, tag, n) for n, one in numbered for tag in one.tags],
        )

    def _remove_passages(self, connection: sqlite3.Connection, s: int, ids: Sequence[str]) -> None:
        if ids:
            self._remove(
                connection,
                "p.s = ? AND p.kind = 0 AND p.id IN (SELECT value FROM json_each(?))",
                (s, json_array(ids)),
            )

    def _remove_events(self, connection: sqlite3.Connection, s: int, events: Sequence[int]) -> None:
        self._remove(
            connection,
            "p.s = ? AND p.seq IN (SELECT value FROM json_each(?))",
            (s, json_array(events)),
        )

    def _drop(self, connection: sqlite3.Connection, s: int) -> None:
        self._remove(connection, "p.s = ?", (s,))
        connection.execute(
            "UPDATE owner SET writes = writes + 1 WHERE o = (SELECT o FROM source WHERE s = ?)",
            (s,),
        )
        connection.execute("DELETE FROM source WHERE s = ?", (s,))

    def _remove(
        self, connection: sqlite3.Connection, where: str, values: tuple[object, ...]
    ) -> None:
        leave = "SELECT p.n, p.o, p.s, p.slot, t.aside FROM passage p JOIN source t ON t.s = p.s"
        rows: list[_Row] = connection.execute(f"{leave} WHERE {where}", values).fetchall()
        if not rows:
            return
        passages = connection.execute(f"{SELECT} WHERE {where}", values).fetchall()
        texts = {row[0]: passage_in(row) for row in passages}
        connection.executemany(
            "INSERT INTO words (words, rowid, text, scope) VALUES ('delete', ?, ?, ?)",
            [(n, *words_of(texts[n], o, s, aside=bool(aside))) for n, o, s, _, aside in rows],
        )
        connection.executemany("DELETE FROM passage WHERE n = ?", [(row[0],) for row in rows])
        connection.executemany(
            "UPDATE owner SET passages = passages - 1 WHERE o = ?", [(row[1],) for row in rows]
        )
        connection.executemany(
            "DELETE FROM tag WHERE o = ? AND n = ?", [(row[1], row[0]) for row in rows]
        )
        connection.executemany(
            "INSERT OR IGNORE INTO free_slot VALUES (?)",
            [(row[3],) for row in rows if row[3] is not None and row[3] >= 0],
        )
        connection.executemany(
            "INSERT INTO remains (slot, words) VALUES (?, ?)",
            [(row[3], not DELETES_WORDS) for row in rows],
        )
        self._outdate(connection, {row[1] for row in rows})

    def _outdate(self, connection: sqlite3.Connection, owners: Iterable[int]) -> None:
        """Makes the columns of these owners outdated, which the finders keep in memory."""
        connection.executemany(
            "UPDATE owner SET changes = changes + 1 WHERE o = ?", [(o,) for o in owners]
        )

    # Vectors

    @property
    def dimensions(self) -> int | None:
        """The length of the vectors; None before the first vector."""
        with typed_errors():
            return space_of(self.connection).dimensions

    def use_embedder(self, name: str, dimensions: int | None) -> None:
        """Chooses the embedder, and discards all vectors by another one or of another length."""
        with self._change() as connection:
            space = space_of(connection)
            same = dimensions in {None, space.dimensions} or space.dimensions is None
            if space.embedder != name or not same or not self._exists(space):
                self._renew(connection, name, dimensions)
            elif space.dimensions is None:
                connection.execute("UPDATE vectors SET dimensions = ?", (dimensions,))
            self._remove_leftovers(space_of(connection).file)
        self._embedder = name

    def remove_leftovers(self) -> None:
        """Removes vector files that an earlier index has left."""
        with self._change() as connection:
            self._remove_leftovers(space_of(connection).file)

    def without_vector(
        self, owner: str, limit: int, refused: Sequence[int] = ()
    ) -> list[Unembedded]:
        """Returns the newest texts of an owner without a vector, except the rows `refused`."""
        with typed_errors():
            rows = self.connection.execute(
                "SELECT n, text FROM passage"
                " WHERE slot IS NULL AND o = (SELECT o FROM owner WHERE name = ?)"
                " AND n NOT IN (SELECT value FROM json_each(?)) ORDER BY n DESC LIMIT ?",
                (owner, json_array(refused), limit),
            )
            return [Unembedded(n, text) for n, text in rows.fetchall()]

    def set_vectors(self, numbers: Sequence[int], vectors: Sequence["Matrix"]) -> None:
        """Sets the vectors of rows; skips rows that have left or have got a vector meanwhile."""
        with self._change() as connection:
            rows = connection.execute(
                "SELECT n FROM passage WHERE slot IS NULL"
                " AND n IN (SELECT value FROM json_each(?))",
                (json_array(numbers),),
            )
            left = {n for (n,) in rows.fetchall()}
            given = [(n, row) for n, row in zip(numbers, vectors, strict=True) if n in left]
            slots = self._store(connection, [row for _, row in given])
            stamps = self._stamps(connection, slots)
            connection.executemany(
                "UPDATE passage SET slot = ?, stamp = ? WHERE n = ?",
                [
                    (slot, stamp, n)
                    for (n, _), slot, stamp in zip(given, slots, stamps, strict=True)
                ],
            )

    def unset_vectors(self, numbers: Sequence[int]) -> None:
        """Marks rows whose vectors are missing from the file, so that they are made again."""
        with self._change() as connection:
            chosen = json_array(numbers)
            where = "slot >= 0 AND n IN (SELECT value FROM json_each(?))"
            rows = connection.execute(f"SELECT o, slot FROM passage WHERE {where}", (chosen,))  # noqa: S608 - of constants
            lost = rows.fetchall()
            connection.executemany(
                "INSERT OR IGNORE INTO free_slot VALUES (?)", [(slot,) for _, slot in lost]
            )
            connection.execute(
                f"UPDATE passage SET slot = NULL, stamp = NULL WHERE {where}",  # noqa: S608 - of constants
                (chosen,),
            )
            self._outdate(connection, {o for o, _ in lost})

    def _store(
        self, connection: sqlite3.Connection, vectors: Sequence["Matrix | None"]
    ) -> list[int | None]:
        """Writes vectors; returns the slot of each, or -1 for a vector of zeros."""
        kept = [vector for vector in vectors if vector is not None and vector.any()]
        slots = iter(self._write_vectors(connection, kept))
        return [
            None if vector is None else next(slots) if vector.any() else -1 for vector in vectors
        ]

    def _write_vectors(
        self, connection: sqlite3.Connection, vectors: Sequence["Matrix"]
    ) -> list[int]:
        if not vectors:
            return []
        space = self._space(connection, len(vectors[0]))
        slots = self._take_slots(connection, len(vectors))
        self.files.get(space).write(slots, vectors)
        return slots

    def _stamps(
        self, connection: sqlite3.Connection, slots: Sequence[int | None]
    ) -> list[int | None]:
        """Returns a stamp for each new vector; finders read the rows above their last stamp."""
        (last,) = connection.execute("SELECT stamp FROM vectors").fetchone()
        connection.execute("UPDATE vectors SET stamp = stamp + ?", (len(slots),))
        return [None if slot is None else last + at for at, slot in enumerate(slots, 1)]

    def _space(self, connection: sqlite3.Connection, dimensions: int) -> VectorSpace:
        """Returns the space for vectors of a length; raises `EmbeddingInvalid` for a new length."""
        space = space_of(connection)
        require_same_embedder(space, self._embedder)
        if space.dimensions is None:
            connection.execute("UPDATE vectors SET dimensions = ?", (dimensions,))
            return space_of(connection)
        if space.dimensions != dimensions:
            raise changed_size(space.embedder, dimensions, space.dimensions)
        return space

    def _take_slots(self, connection: sqlite3.Connection, number: int) -> list[int]:
        """Returns slots that no row uses, in ascending order: free ones first, then new ones."""
        free = connection.execute(
            "DELETE FROM free_slot WHERE slot IN"
            " (SELECT slot FROM free_slot ORDER BY slot LIMIT ?) RETURNING slot",
            (number,),
        ).fetchall()
        slots = sorted(slot for (slot,) in free)
        (used,) = connection.execute("SELECT slots FROM vectors").fetchone()
        more = number - len(slots)
        connection.execute("UPDATE vectors SET slots = slots + ?", (more,))
        return [*slots, *range(used, used + more)]

    def _exists(self, space: VectorSpace) -> bool:
        """Whether the file of the vectors exists; vectors in memory always do."""
        return self.path is None or self.path.with_name(space.file).exists()

    def _renew(self, connection: sqlite3.Connection, name: str, dimensions: int | None) -> None:
        """Starts a new file of vectors; other processes may still read the old one."""
        stem = self.path.name if self.path is not None else "archive"
        file = f"{stem}-{uuid.uuid4().hex[:12]}.f32"
        if self.path is not None:
            os.close(os.open(self.path.with_name(file), os.O_CREAT | os.O_RDWR, 0o600))
        connection.execute("DELETE FROM free_slot")
        connection.execute("UPDATE passage SET slot = NULL, stamp = NULL WHERE slot IS NOT NULL")
        connection.execute(
            "UPDATE vectors SET embedder = ?, dimensions = ?, file = ?, slots = 0",
            (name, dimensions, file),
        )

    def _remove_leftovers(self, current: str) -> None:
        if self.path is not None:
            for path in self.path.parent.glob(f"{_escaped(self.path.name)}-{_HEX * 12}.f32"):
                if path.name != current:
                    with suppress(OSError):  # another process has it open; tried again later
                        path.unlink()

    @contextmanager
    def _change(self) -> Generator[sqlite3.Connection]:
        """Runs a transaction that excludes the writes of other processes from its first read on."""
        connection = self.connection
        with typed_errors():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
