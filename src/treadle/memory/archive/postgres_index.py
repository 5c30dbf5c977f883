"""The index of the archive in a PostgreSQL database, for all nodes: what it has of which thread.

Each method is a transaction of the connection it gets, for use in a thread. What changes rows of an
owner locks the owner's row, after that of the thread; a deletion of the thread waits for no owner.

Full text is a `tsvector` of the words that SQLite's index has (`words.lexemes`), stemmed by the
server. Vectors belong to texts, see `postgres_vectors`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from treadle.domain.passages import Kind, Passage
from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.sql_connection import SEQ_BITS
from treadle.memory.archive.pages import Page
from treadle.memory.archive.words import MAX_OFTEN, counted, length_of

_STEMS = 50_000
_MARKS = 2000
_LAST_SEQ = (1 << SEQ_BITS) - 1

_BEHIND = f"""
    SELECT t.n, t.id, coalesce(a.seq, 0), last.seq
    FROM thread t LEFT JOIN archive_thread a ON a.t = t.n
    CROSS JOIN LATERAL (
        SELECT coalesce(max(position), 0) & {_LAST_SEQ} AS seq FROM event
        WHERE position > t.n << {SEQ_BITS} AND position < (t.n + 1) << {SEQ_BITS}
    ) AS last
    WHERE t.owner = ? AND last.seq > coalesce(a.seq, 0) ORDER BY t.n
"""  # noqa: S608 - of constants


class Behind(NamedTuple):
    """A thread, up to which event the index has it, and its last event."""

    number: int
    thread_id: str
    seq: int
    last: int


class PostgresIndex:
    """Reads and writes the index, without the vectors."""

    def __init__(self) -> None:
        self._stems: dict[str, str] = {}

    # Threads and what they add

    def behind(self, connection: PostgresConnection, owner: str) -> list[Behind]:
        """Returns the threads of an owner with events that the index does not have."""
        return [Behind(*row) for row in connection.execute(_BEHIND, (owner,)).fetchall()]

    def apply(self, connection: PostgresConnection, number: int, page: Page) -> int | None:
        """Applies a page of events; returns the last event of the thread that is in the index.

        If the page does not follow the last event in the index, because another process was
        faster, nothing changes. Returns None for a thread that was deleted.
        """
        counts = [counted(one.text) for one in page.added]
        stems = self.stemmed(connection, {word for each in counts for word in each})
        with connection.transaction():
            row = connection.execute(
                "SELECT owner, parent FROM thread WHERE n = ? FOR KEY SHARE", (number,)
            ).fetchone()
            if row is None:
                return None
            owner = lock_owner(connection, row[0])
            connection.execute(
                "INSERT INTO archive_thread (t, o) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (number, owner),
            )
            (seq,) = connection.execute(
                "SELECT seq FROM archive_thread WHERE t = ?", (number,)
            ).fetchone()
            if seq != page.after:
                return seq
            _remove(connection, number, "archive", "id", page.removed)
            _remove(connection, number, "message", "seq", page.forgotten)
            known = _known(connection, number, page.added)
            new = [
                (one, counts)
                for one, counts in zip(page.added, counts, strict=True)
                if one.kind == "message" or one.id not in known
            ]
            names = [f"'/t{number}':1"], [f"'/o{owner}':1", f"'/t{number}':1"]
            with connection.raw.pipeline():
                for one, words in new:
                    aside = bool(row[1]) and one.kind == "message"
                    _insert(connection, (owner, number), one, aside=aside, words=[
                        *names[not aside], *_written(words, stems)
                    ], tokens=length_of(words))  # fmt: skip
                connection.execute(
                    "UPDATE archive_owner SET passages = passages + ?, tokens = tokens + ?"
                    " WHERE o = ?",
                    (len(new), sum(length_of(words) for _, words in new), owner),
                )
                connection.execute(
                    "UPDATE archive_thread SET seq = ? WHERE t = ?", (page.until, number)
                )
            return page.until

    def stemmed(self, connection: PostgresConnection, words: Collection[str]) -> Mapping[str, str]:
        """Returns the stem of each word; those that are known here are not asked for again."""
        known = self._stems  # used by two threads: words are never taken out of it
        stems = {word: known[word] for word in words if word in known}
        unknown = [word for word in words if word not in stems]
        if unknown:
            rows = connection.execute(
                "SELECT word, (ts_lexize('archive_stem', word))[1] FROM unnest(?::text[]) AS word",
                (unknown,),
            )
            new = {word: stem or word for word, stem in rows.fetchall()}
            if len(known) > _STEMS:
                self._stems = new
            else:
                known.update(new)
            stems |= new
        return stems

    def forget(self, connection: PostgresConnection, thread_id: str, events: Sequence[int]) -> None:
        """Removes what these events of a thread added."""
        connection.execute(
            "DELETE FROM archive_passage WHERE t = (SELECT n FROM thread WHERE id = ?)"
            " AND seq = ANY(?)",
            (thread_id, list(events)),
        )

    def sweep(self, connection: PostgresConnection) -> None:
        """Removes vectors of texts that were removed, and owners without threads."""
        owners = connection.execute(
            "SELECT DISTINCT o FROM archive_gone WHERE due <= now() ORDER BY o"
        ).fetchall()
        for (owner,) in owners:
            while _sweep(connection, owner):
                pass


def _sweep(connection: PostgresConnection, owner: int) -> bool:
    """Works off some of the marks of an owner; returns whether there may be more."""
    with connection.transaction():
        # Looks up one text after the other, whatever the planner knows of the tables.
        connection.execute("SET LOCAL enable_hashjoin = off")
        connection.execute("SET LOCAL enable_mergejoin = off")
        connection.execute("SELECT 1 FROM archive_owner WHERE o = ? FOR UPDATE", (owner,))
        marks = connection.execute(
            "DELETE FROM archive_gone WHERE ctid = ANY(ARRAY(SELECT ctid FROM archive_gone"
            " WHERE o = ? AND due <= now() LIMIT ?)) RETURNING digest, tokens",
            (owner, _MARKS),
        ).fetchall()
        connection.execute(
            "DELETE FROM archive_vector v WHERE v.o = ? AND v.digest = ANY(?) AND NOT EXISTS"
            " (SELECT 1 FROM archive_passage p WHERE p.o = v.o AND p.digest = v.digest)",
            (owner, list({digest for digest, _ in marks})),
        )
        removed = [tokens for _, tokens in marks if tokens is not None]
        connection.execute(
            "UPDATE archive_owner SET passages = passages - ?, tokens = tokens - ? WHERE o = ?",
            (len(removed), sum(removed), owner),
        )
        connection.execute(
            "DELETE FROM archive_owner w WHERE o = ?"
            " AND NOT EXISTS (SELECT 1 FROM archive_thread t WHERE t.o = w.o)"
            " AND (NOT EXISTS (SELECT 1 FROM archive_gone g WHERE g.o = w.o)"
            " OR NOT EXISTS (SELECT 1 FROM thread t WHERE t.owner = w.name))",
            (owner,),
        )
        connection.execute(
            "DELETE FROM archive_gone g WHERE o = ?"
            " AND NOT EXISTS (SELECT 1 FROM archive_owner w WHERE w.o = g.o)",
            (owner,),
        )
    return len(marks) == _MARKS


def digest_of(text: str) -> str:
    """Returns what identifies a text among those of its owner."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def lock_owner(connection: PostgresConnection, name: str) -> int:
    """Returns the number of an owner, whose row is locked until the transaction ends."""
    while True:
        row = connection.execute(
            "SELECT o FROM archive_owner WHERE name = ? FOR UPDATE", (name,)
        ).fetchone()
        if row is not None:
            return row[0]
        connection.execute(
            "INSERT INTO archive_owner (name) VALUES (?) ON CONFLICT DO NOTHING", (name,)
        )


def _known(
    connection: PostgresConnection, number: int, passages: Sequence[Passage]
) -> frozenset[str]:
    ids = [one.id for one in passages if one.kind == "archive"]
    if not ids:
        return frozenset()
    rows = connection.execute(
        "SELECT id FROM archive_passage WHERE t = ? AND kind = 'archive' AND id = ANY(?)",
        (number, ids),
    )
    return frozenset(id for (id,) in rows.fetchall())


def _remove(
    connection: PostgresConnection, number: int, kind: Kind, column: str, values: Sequence[object]
) -> None:
    if values:
        connection.execute(
            f"DELETE FROM archive_passage WHERE t = ? AND kind = ? AND {column} = ANY(?)",  # noqa: S608 - of constants
            (number, kind, list(values)),
        )


def _insert(
    connection: PostgresConnection,
    place: tuple[int, int],
    passage: Passage,
    *,
    aside: bool,
    words: Sequence[str],
    tokens: int,
) -> None:
    connection.execute(
        "INSERT INTO archive_passage (o, t, seq, kind, role, aside, at, id, run_id, tags, digest,"
        " tokens, words, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?::text[], ?, ?,"
        " ?::text::tsvector, ?)",
        (
            *place, passage.seq, passage.kind, passage.role, aside, float(passage.created_at),
            passage.id, passage.run_id, list(passage.tags), digest_of(passage.text), tokens,
            " ".join(words), passage.text,
        ),
    )  # fmt: skip


def _written(words: Mapping[str, int], stems: Mapping[str, str]) -> Iterable[str]:
    """Returns words as a tsvector is written: each stem as often as it occurs."""
    counts: dict[str, int] = {}
    for word, count in words.items():
        stem = stems[word]
        counts[stem] = counts.get(stem, 0) + count
    return (f"'{stem}':{_POSITIONS[min(count, MAX_OFTEN)]}" for stem, count in counts.items())


_POSITIONS = [",".join(map(str, range(1, count + 1))) for count in range(MAX_OFTEN + 1)]
