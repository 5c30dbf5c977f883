"""The index of the archive: what is written to it, each change whole or not at all.

For one thread of the process, which may wait for another process; see `store` for the rest.
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

from treadle.domain.events import MessageAdded, PassageAdded, PassageRemoved, RecordedEvent
from treadle.domain.passages import Passage
from treadle.errors import EmbeddingInvalid
from treadle.journal.base import ThreadMark
from treadle.memory.archive.index_file import (
    KINDS,
    ROLES,
    SELECT,
    VectorFiles,
    VectorSpace,
    Written,
    connect,
    passage_in,
    require_embedder,
    space_of,
    typed_errors,
    words_of,
    written_of,
)

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix


class Page(Struct, frozen=True):
    """What some events of a thread in a row change: what leaves, and then what comes.

    They follow event `after`; the last of them is event `until`, of the time `at`.
    """

    after: int
    until: int
    at: float
    removed: tuple[str, ...]
    added: tuple[Passage, ...]


def page_of(thread_id: str, events: Iterable[RecordedEvent]) -> Page | None:
    """Returns what `events`, which follow each other, say of passages; None without events."""
    first = last = None
    removed: list[str] = []
    added: dict[str | int, Passage] = {}
    for event in events:
        first, last = first or event, event
        if isinstance(event, PassageRemoved):
            added.pop(event.passage_id, None)
            removed.append(event.passage_id)
            continue
        passage = passage_of(thread_id, event)
        if passage is not None:
            # A passage that is put in twice is one; a message may be said again with the same id.
            added.setdefault(passage.id if passage.kind == "archive" else passage.seq, passage)
    if first is None or last is None:
        return None
    return Page(first.seq - 1, last.seq, last.at, tuple(removed), tuple(added.values()))


def passage_of(thread_id: str, event: RecordedEvent) -> Passage | None:
    """Returns the passage that an event adds, if it does: a message without text is none."""
    match event:
        case PassageAdded():
            return Passage(
                id=event.passage_id,
                text=event.text,
                kind="archive",
                thread_id=thread_id,
                seq=event.seq,
                created_at=event.at if event.written_at is None else event.written_at,
                run_id=event.run_id,
                tags=event.tags,
            )
        case MessageAdded() if event.item.text.strip():
            return Passage(
                id=event.item.id or f"{thread_id}/{event.seq}",
                text=event.item.text,
                kind="message",
                thread_id=thread_id,
                seq=event.seq,
                created_at=event.at,
                run_id=event.run_id,
                role=event.item.role,
            )
        case _:
            return None


class Source(Struct, frozen=True):
    """A thread: its number in the journal, and whether an agent works on it for another thread."""

    thread_id: str
    owner: str
    number: int
    aside: bool = False


class Known(Struct, frozen=True):
    """What the index has of a thread: events up to `seq`, which is of the time `at`."""

    number: int
    seq: int
    at: float


class Lacking(Struct, frozen=True):
    """A text that has no vector yet, in the row `n`."""

    n: int
    text: str


class Statistics(Struct, frozen=True):
    """How much of an owner's is in the index.

    `passages` were put into the archive, `messages` said on threads; `without_vector` are those of
    both that no vector was made for yet.
    """

    passages: int
    messages: int
    threads: int
    without_vector: int


_HEX = "[0-9a-f]"

_Row = tuple[int, int, int, int | None, int]
"""A row that is about to leave: n, o, s, slot, aside."""


class Index:
    """Writes the index in the file `path`, or in memory where it is None.

    It is `untidy` while something of what was deleted may be left in its files.

    All methods raise `IndexDamaged` where the file cannot be used any more, else `ArchiveFailed`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.connection = connect(path)
        self.files = VectorFiles(path)
        self._embedder = ""
        self.untidy = False

    def close(self) -> None:
        """Closes the file."""
        with typed_errors():
            self.connection.close()

    # Threads and what they add

    def sources(self, owner: str | None = None) -> dict[str, Known]:
        """Returns the threads that the index knows, all or those of an owner."""
        where = "" if owner is None else " WHERE o = (SELECT o FROM owner WHERE name = ?)"
        with typed_errors():
            rows = self.connection.execute(
                f"SELECT thread_id, number, seq, at FROM source{where}",  # noqa: S608 - it is made of constants
                () if owner is None else (owner,),
            )
            return {thread_id: Known(*known) for thread_id, *known in rows.fetchall()}

    def settled(self, owner: str, marks: Iterable[ThreadMark]) -> Written | None:
        """Returns how often an owner was written to, if the index has these threads and no other.

        That is, up to exactly these events.
        """
        with typed_errors():
            # First: what another process writes in between must not be taken for known.
            written = written_of(self.connection, owner)
        known = self.sources(owner)
        there = {id: (source.number, source.seq) for id, source in known.items()}
        return written if there == {m.id: (m.number, m.seq) for m in marks if m.seq} else None

    def apply(self, source: Source, page: Page, vectors: Mapping[str, "Matrix"]) -> int:
        """Adds what a page of events says; returns up to which event the index knows the thread.

        That is another one than the page's last where the page does not follow what it knew.
        `vectors` are those of passages that are known already, by the passages' ids.
        """
        with self._change() as connection:
            s, o, seq = self._source(connection, source)
            if seq != page.after:
                return seq
            passages = self._new(connection, s, page)
            slots = self._store(connection, [vectors.get(one.id) for one in passages])
            # Only now: a slot that this change makes free must not be written to in it.
            self._remove_passages(connection, s, page.removed)
            self._insert(connection, source, (s, o), passages, slots)
            connection.execute(
                "UPDATE source SET seq = ?, at = ? WHERE s = ?", (page.until, page.at, s)
            )
            return page.until

    def drop(self, thread_ids: Iterable[str]) -> None:
        """Forgets threads, and all that they added."""
        with self._change() as connection:
            for thread_id in thread_ids:
                row = connection.execute(
                    "SELECT s FROM source WHERE thread_id = ?", (thread_id,)
                ).fetchone()
                if row is not None:
                    self._drop(connection, row[0])
            connection.execute("DELETE FROM owner WHERE o NOT IN (SELECT o FROM source)")

    def tidy(self) -> None:
        """Overwrites what is left in the files of what was deleted.

        Full text keeps the words of a row that was deleted until its parts are merged, and a slot
        its vector until another one takes it.
        """
        with self._change() as connection:
            connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            slots = connection.execute("SELECT slot FROM free_slot ORDER BY slot").fetchall()
            space = space_of(connection)
            if slots and space.dimensions is not None:
                self.files.wipe(space, [slot for (slot,) in slots])
        self.untidy = False

    def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns what was put into the archive of an owner under an id, on each thread."""
        with typed_errors():
            rows = self.connection.execute(
                f"{SELECT} JOIN owner w ON w.o = p.o"
                " WHERE p.id = ? AND p.kind = 0 AND w.name = ? ORDER BY p.n",
                (passage_id, owner),
            ).fetchall()
        return [passage_in(row) for row in rows]

    def statistics(self, owner: str) -> Statistics:
        """Returns how much of an owner's there is."""
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
            self._drop(connection, row[0])  # a thread of the same id was there before
        connection.execute("INSERT OR IGNORE INTO owner (name) VALUES (?)", (source.owner,))
        (o,) = connection.execute("SELECT o FROM owner WHERE name = ?", (source.owner,)).fetchone()
        cursor = connection.execute(
            "INSERT INTO source (o, thread_id, number, aside, seq, at) VALUES (?, ?, ?, ?, 0, 0)",
            (o, source.thread_id, source.number, source.aside),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid, o, 0

    def _new(self, connection: sqlite3.Connection, s: int, page: Page) -> list[Passage]:
        """Returns the passages of a page that are not there yet."""
        ids = [one.id for one in page.added if one.kind == "archive"]
        known = connection.execute(
            "SELECT id FROM passage WHERE s = ? AND kind = 0"
            " AND id IN (SELECT value FROM json_each(?))",
            (s, msgspec.json.encode(ids).decode()),
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
                    msgspec.json.encode(one.tags).decode(), one.text,
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
                (s, msgspec.json.encode(ids).decode()),
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
        self.untidy = True
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
        self._outdate(connection, {row[1] for row in rows})

    def _outdate(self, connection: sqlite3.Connection, owners: Iterable[int]) -> None:
        """Has whoever keeps the slots of these owners in memory read them again."""
        connection.executemany(
            "UPDATE owner SET changes = changes + 1 WHERE o = ?", [(o,) for o in owners]
        )

    # Vectors

    @property
    def dimensions(self) -> int | None:
        """The size of the vectors, if there are any yet."""
        with typed_errors():
            return space_of(self.connection).dimensions

    def use_embedder(self, name: str, dimensions: int | None) -> None:
        """Has all vectors made again, unless they are of this embedder and this size."""
        with self._change() as connection:
            space = space_of(connection)
            same = dimensions in {None, space.dimensions} or space.dimensions is None
            if space.embedder != name or not same or not self._is_there(space):
                self._renew(connection, name, dimensions)
            elif space.dimensions is None:
                connection.execute("UPDATE vectors SET dimensions = ?", (dimensions,))
            self._remove_leftovers(space_of(connection).file)
        self._embedder = name

    def remove_leftovers(self) -> None:
        """Removes the vectors of an index that was there before."""
        with self._change() as connection:
            self._remove_leftovers(space_of(connection).file)

    def lacking(self, owner: str, limit: int, refused: Sequence[int] = ()) -> list[Lacking]:
        """Returns texts of an owner without a vector, but for those `refused`, the newest first."""
        with typed_errors():
            rows = self.connection.execute(
                "SELECT n, text FROM passage"
                " WHERE slot IS NULL AND o = (SELECT o FROM owner WHERE name = ?)"
                " AND n NOT IN (SELECT value FROM json_each(?)) ORDER BY n DESC LIMIT ?",
                (owner, msgspec.json.encode(refused).decode(), limit),
            )
            return [Lacking(n, text) for n, text in rows.fetchall()]

    def give(self, numbers: Sequence[int], vectors: Sequence["Matrix"]) -> None:
        """Gives rows their vectors, those that are still there and have none."""
        with self._change() as connection:
            rows = connection.execute(
                "SELECT n FROM passage WHERE slot IS NULL"
                " AND n IN (SELECT value FROM json_each(?))",
                (msgspec.json.encode(numbers).decode(),),
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

    def lose(self, numbers: Sequence[int]) -> None:
        """Notes that the vectors of rows are gone, and have to be made again."""
        with self._change() as connection:
            chosen = msgspec.json.encode(numbers).decode()
            where = "slot >= 0 AND n IN (SELECT value FROM json_each(?))"
            rows = connection.execute(f"SELECT o, slot FROM passage WHERE {where}", (chosen,))  # noqa: S608 - it is made of constants
            lost = rows.fetchall()
            connection.executemany(
                "INSERT OR IGNORE INTO free_slot VALUES (?)", [(slot,) for _, slot in lost]
            )
            connection.execute(
                f"UPDATE passage SET slot = NULL, stamp = NULL WHERE {where}",  # noqa: S608 - as above
                (chosen,),
            )
            self._outdate(connection, {o for o, _ in lost})

    def _store(
        self, connection: sqlite3.Connection, vectors: Sequence["Matrix | None"]
    ) -> list[int | None]:
        """Writes vectors; returns the slot of each, -1 for one without a direction."""
        kept = [vector for vector in vectors if vector is not None and vector.any()]
        slots = iter(self._written(connection, kept))
        return [
            None if vector is None else next(slots) if vector.any() else -1 for vector in vectors
        ]

    def _written(self, connection: sqlite3.Connection, vectors: Sequence["Matrix"]) -> list[int]:
        if not vectors:
            return []
        space = self._space(connection, len(vectors[0]))
        slots = self._take_slots(connection, len(vectors))
        self.files.get(space).write(slots, vectors)
        return slots

    def _stamps(
        self, connection: sqlite3.Connection, slots: Sequence[int | None]
    ) -> list[int | None]:
        """Numbers the vectors on, so that a reader finds those that are new to it."""
        (last,) = connection.execute("SELECT stamp FROM vectors").fetchone()
        connection.execute("UPDATE vectors SET stamp = stamp + ?", (len(slots),))
        return [None if slot is None else last + at for at, slot in enumerate(slots, 1)]

    def _space(self, connection: sqlite3.Connection, dimensions: int) -> VectorSpace:
        """Returns where vectors of this size go; raises `EmbeddingInvalid` where nowhere."""
        space = space_of(connection)
        require_embedder(space, self._embedder)
        if space.dimensions is None:
            connection.execute("UPDATE vectors SET dimensions = ?", (dimensions,))
            return space_of(connection)
        if space.dimensions != dimensions:
            raise EmbeddingInvalid(
                f"The embedder {space.embedder} returned vectors of the size {dimensions}, and "
                f"before of {space.dimensions}; an embedder that changed needs another name."
            )
        return space

    def _take_slots(self, connection: sqlite3.Connection, number: int) -> list[int]:
        """Returns slots that no row has, in ascending order."""
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

    def _is_there(self, space: VectorSpace) -> bool:
        """Whether the file of the vectors is; in memory it always is."""
        return self.path is None or self.path.with_name(space.file).exists()

    def _renew(self, connection: sqlite3.Connection, name: str, dimensions: int | None) -> None:
        """Begins a new file, and leaves the old one to whoever still reads it."""
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
                    with suppress(OSError):  # somebody still reads it; the next one tries again
                        path.unlink()

    @contextmanager
    def _change(self) -> Generator[sqlite3.Connection]:
        """A transaction that no other process's comes between."""
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
