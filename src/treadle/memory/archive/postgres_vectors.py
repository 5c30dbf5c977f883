"""The vectors of the archive in a PostgreSQL database, and who makes those that are missing.

They are those of texts, by their digest: equal texts of an owner, such as those of a fork, are
embedded once. With the extension pgvector the server compares them. The vectors of two embedders
exist next to each other, so that nodes can be replaced one after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from treadle.journal.postgres_connection import PostgresConnection
from treadle.memory.archive.embedders import changed_size
from treadle.memory.archive.postgres_index import digest_of, lock_owner

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

TRIES = 5
"""How often a text is embedded that was refused, or during which a process ended."""

CLAIM_SECONDS = 30
REFUSED_SECONDS = 3600
"""After which time a text is tried again whose embedder ended, and one that was refused."""

UNUSED_DAYS = 7
"""After which time the vectors of an embedder are removed that no node uses any more."""

# A subquery that the planner does not turn into a join, which could read all passages.
_HAS_TEXT = (
    "(SELECT true FROM archive_passage p"
    " WHERE p.o = archive_vector.o AND p.digest = archive_vector.digest LIMIT 1)"
)
_MISSING = f"o = ? AND e = ? AND vector IS NULL AND {_HAS_TEXT}"

# A text whose claims all ended with their processes was not refused: it is tried once an hour.
_TO_EMBED = (
    f"(tries < {TRIES} AND until <= now()"
    f" OR is_claimed AND until <= now() - interval '{REFUSED_SECONDS} seconds')"
)


class Unembedded(NamedTuple):
    """A text that this process is to embed."""

    digest: str
    text: str


class PostgresVectors:
    """Reads and writes the vectors of an embedder; each method is a transaction, for a thread."""

    def __init__(self, name: str, dimensions: int | None) -> None:
        self._name = name
        self._dimensions = dimensions

    def prepare(self, connection: PostgresConnection) -> bool:
        """Has the server compare the vectors if it can; returns whether it does.

        Also removes the vectors of embedders that are no longer used.
        """
        with connection.transaction():
            self.number(connection)
            connection.execute(
                "DELETE FROM archive_embedder"  # noqa: S608 - of constants
                f" WHERE used_at < now() - interval '{UNUSED_DAYS} days'"
            )
        if vector_type(connection):
            return True
        schema = extension_schema(connection)
        if not schema:
            return False
        try:
            with connection.transaction():
                _convert(connection, schema)
        except psycopg.errors.InsufficientPrivilege:  # the tables belong to another role
            return False
        return True

    def dimensions(self, connection: PostgresConnection) -> int | None:
        """Returns the length of the vectors; None before the first one."""
        return self.number(connection)[1]

    def keep(
        self,
        connection: PostgresConnection,
        owner: str,
        texts: Sequence[str],
        vectors: "Sequence[Matrix]",
        time: str = "1 hour",
    ) -> None:
        """Stores the vectors of texts that are about to be added.

        Those that are not added within a `time` are removed again.
        """
        given = {digest_of(text): vector for text, vector in zip(texts, vectors, strict=True)}
        with connection.transaction():
            number = lock_owner(connection, owner)
            embedder = self._sized(connection, vectors)
            digests = sorted(given)
            connection.execute(
                "INSERT INTO archive_vector (o, e, digest) SELECT ?, ?, unnest(?::text[])"
                " ON CONFLICT DO NOTHING",
                (number, embedder, digests),
            )
            connection.execute(
                "INSERT INTO archive_gone (o, digest, due)"
                " SELECT ?, unnest(?::text[]), now() + ?::text::interval",
                (number, digests, time),
            )
            _set(connection, (number, embedder), [(digest, given[digest]) for digest in digests])

    def claim(self, connection: PostgresConnection, owner: str, limit: int) -> list[Unembedded]:
        """Returns the newest texts without a vector that no other process is embedding."""
        with connection.transaction():
            found = self._found_owner(connection, owner)
            if found is None:
                return []
            self._enlist(connection, *found)
            # The inner query is executed once, and the numbers it returns are looked up, whatever
            # the planner knows of the table.
            rows = connection.execute(
                "UPDATE archive_vector v SET tries = tries + 1, is_claimed = true,"  # noqa: S608 - of constants
                f" until = now() + interval '{CLAIM_SECONDS} seconds' WHERE v = ANY(ARRAY("
                f"SELECT v FROM archive_vector WHERE {_MISSING} AND {_TO_EMBED}"
                " ORDER BY v DESC LIMIT ? FOR UPDATE SKIP LOCKED))"
                " RETURNING v, digest,"
                " (SELECT text FROM archive_passage p WHERE p.o = v.o AND p.digest = v.digest"
                " LIMIT 1)",
                (*found, limit),
            ).fetchall()
        return [Unembedded(digest, text) for _, digest, text in sorted(rows)[::-1] if text]

    def are_coming(self, connection: PostgresConnection, owner: str) -> bool:
        """Returns whether vectors of an owner are to be made, or are being made by any process."""
        found = self._found_owner(connection, owner)
        if found is None:
            return False
        (are_coming,) = connection.execute(
            # A claim that has not been committed yet, or has just ended, is not seen as one.
            f"SELECT EXISTS (SELECT 1 FROM archive_vector WHERE {_MISSING}"  # noqa: S608 - of constants
            f" AND (is_claimed AND until > now() OR {_TO_EMBED}))",
            found,
        ).fetchone()
        return are_coming

    def renew(self, connection: PostgresConnection, owner: str, digests: Sequence[str]) -> None:
        """Keeps the claim of texts."""
        self._update(
            connection, owner, digests, f"until = now() + interval '{CLAIM_SECONDS} seconds'"
        )

    def release(self, connection: PostgresConnection, owner: str, digests: Sequence[str]) -> None:
        """Gives texts back that were not embedded, because the embedder failed."""
        tries = f"least(tries, {TRIES}) - 1"
        self._update(
            connection, owner, digests, f"tries = {tries}, is_claimed = false, until = now()"
        )

    def store(
        self,
        connection: PostgresConnection,
        owner: str,
        vectors: "Mapping[str, Matrix | None]",
    ) -> None:
        """Stores the vectors of texts by digest; those with None were refused."""
        made = sorted((digest, one) for digest, one in vectors.items() if one is not None)
        with connection.transaction():
            found = self._found_owner(connection, owner)
            if found is not None and made:
                self._sized(connection, [vector for _, vector in made])
                _set(connection, found, made)
            refused = [digest for digest, one in vectors.items() if one is None]
            later = f"is_claimed = false, until = now() + interval '{REFUSED_SECONDS} seconds'"
            self._update(connection, owner, refused, later)

    def _update(
        self, connection: PostgresConnection, owner: str, digests: Sequence[str], change: str
    ) -> None:
        found = self._found_owner(connection, owner)
        if found is not None and digests:
            connection.execute(
                f"UPDATE archive_vector SET {change}"  # noqa: S608 - of constants
                " WHERE o = ? AND e = ? AND digest = ANY(?)",
                (*found, list(digests)),
            )

    def _enlist(self, connection: PostgresConnection, owner: int, embedder: int) -> None:
        """Adds rows for the texts that came since the last call of any process."""
        newest, upto = connection.execute(
            "SELECT coalesce((SELECT max(n) FROM archive_passage WHERE o = ?), 0),"
            " coalesce((SELECT upto FROM archive_upto WHERE o = ? AND e = ?), 0)",
            (owner, owner, embedder),
        ).fetchone()
        if newest <= upto:
            return
        # Under the lock, and read again: passages are committed in the order of their numbers.
        connection.execute("SELECT 1 FROM archive_owner WHERE o = ? FOR UPDATE", (owner,))
        connection.execute(
            "INSERT INTO archive_vector (o, e, digest) SELECT ?, ?, p.digest"
            " FROM (SELECT digest, max(n) AS n FROM archive_passage WHERE o = ? AND n > ?"
            " GROUP BY digest ORDER BY max(n)) AS p ON CONFLICT DO NOTHING",
            (owner, embedder, owner, upto),
        )
        connection.execute(
            "INSERT INTO archive_upto (o, e, upto)"
            " SELECT ?, ?, max(n) FROM archive_passage WHERE o = ? HAVING max(n) IS NOT NULL"
            " ON CONFLICT (o, e) DO UPDATE SET upto = excluded.upto",
            (owner, embedder, owner),
        )

    def number(self, connection: PostgresConnection) -> tuple[int, int | None]:
        """Returns the number of the embedder and the length of its vectors; notes its use."""
        name, size = self._name, self._dimensions
        while True:
            row = connection.execute(
                "SELECT e, dimensions, used_at < now() - interval '1 hour' FROM archive_embedder"
                " WHERE name = ? AND (?::bigint IS NULL OR coalesce(dimensions, ?) = ?)"
                " ORDER BY e DESC LIMIT 1",
                (name, size, size, size),
            ).fetchone()
            if row is not None:
                break
            connection.execute(
                "INSERT INTO archive_embedder (name, dimensions) VALUES (?, ?)"
                " ON CONFLICT DO NOTHING",
                (name, size),
            )
        if row[2]:
            connection.execute("UPDATE archive_embedder SET used_at = now() WHERE e = ?", row[:1])
        return row[0], row[1]

    def _sized(self, connection: PostgresConnection, vectors: "Sequence[Matrix]") -> int:
        """Returns the number of the embedder, whose vectors have this length from now on."""
        number, size = self.number(connection)
        if size is None:
            (size,) = connection.execute(
                "UPDATE archive_embedder SET dimensions = coalesce(dimensions, ?) WHERE e = ?"
                " RETURNING dimensions",
                (len(vectors[0]), number),
            ).fetchone()
        if size != len(vectors[0]):
            raise changed_size(self._name, len(vectors[0]), size or 0)
        return number

    def _found_owner(self, connection: PostgresConnection, owner: str) -> tuple[int, int] | None:
        row = connection.execute("SELECT o FROM archive_owner WHERE name = ?", (owner,)).fetchone()
        return None if row is None else (row[0], self.number(connection)[0])


# The column of the vectors


def extension_schema(connection: PostgresConnection) -> str:
    """Returns the schema of pgvector, which is created if this role may do it; "" without it."""
    try:
        connection.raw.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except psycopg.DatabaseError:  # it is not installed, or another role has to create it
        if connection.raw.closed:
            raise
    row = connection.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    return "" if row is None else row[0]


def vector_type(connection: PostgresConnection) -> str:
    """Returns the name of pgvector's type if the vectors have it, else ""."""
    row = connection.execute(
        "SELECT quote_ident(n.nspname) || '.vector' FROM pg_attribute a"
        " JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace"
        " WHERE a.attrelid = 'archive_vector'::regclass AND a.attname = 'vector'"
        " AND t.typname = 'vector'"
    ).fetchone()
    return "" if row is None else row[0]


def _set(
    connection: PostgresConnection,
    place: tuple[int, int],
    vectors: "Sequence[tuple[str, Matrix]]",
) -> None:
    """Sets vectors where there are none.

    That is no condition, because the planner could look for it by the index of those that wait.
    """
    type = vector_type(connection)
    value = f"?::float8[]::{type}" if type else "?"
    with connection.raw.pipeline():
        for digest, vector in vectors:
            connection.execute(
                f"UPDATE archive_vector SET vector = coalesce(vector, {value}), is_blank = ?,"  # noqa: S608 - of constants
                " is_claimed = false WHERE o = ? AND e = ? AND digest = ?",
                (
                    vector.tolist() if type else memoryview(vector.astype("<f4").tobytes()),
                    not vector.any(), *place, digest,
                ),
            )  # fmt: skip


def _convert(connection: PostgresConnection, schema: str) -> None:
    """Makes the column of the vectors one of pgvector's type."""
    connection.execute("LOCK TABLE archive_vector")
    if vector_type(connection):
        return  # another node has done it
    decode: Callable[[bytes], list[float]] = import_module(
        "treadle.memory.archive.vectors"
    ).floats_in
    connection.execute("ALTER TABLE archive_vector RENAME COLUMN vector TO stored")
    connection.execute(f"ALTER TABLE archive_vector ADD COLUMN vector {schema}.vector")
    last = 0
    while rows := connection.execute(
        "SELECT v, stored FROM archive_vector WHERE v > ? AND stored IS NOT NULL"
        " ORDER BY v LIMIT 500",
        (last,),
    ).fetchall():
        last = rows[-1][0]
        with connection.raw.pipeline():
            for v, stored in rows:
                connection.execute(
                    f"UPDATE archive_vector SET vector = ?::float8[]::{schema}.vector WHERE v = ?",  # noqa: S608 - of constants
                    (decode(stored), v),
                )
    connection.execute("ALTER TABLE archive_vector DROP COLUMN stored")
    connection.execute(
        "CREATE INDEX archive_vector_waiting ON archive_vector (o, e, v) WHERE vector IS NULL"
    )
