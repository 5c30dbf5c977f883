"""Permits in a PostgreSQL database: how many threads of an owner run at a time, over all nodes.

Each change of the permits of an owner is one transaction under the lock of that owner, so nodes
never give more than there are. It need not survive a crash of the server, so its commit does not
wait for the disk: nodes ask again for what was lost (`with_permits`), and write again what they
have (`keep_permits`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.sql_connection import Cursor

T = TypeVar("T")

# When the message came for which a thread has work: its place among those that wait, whatever else
# comes to the thread meanwhile, and whichever node asks.
_SINCE = """
    coalesce((
        SELECT min(coalesce(r.queued_at, r.started_at)) FROM run r
        WHERE r.n = t.n AND r.last_seq = 0
    ), a.updated_at)
"""
# A thread keeps a permit that it has got while it waited. One that asks for another run goes behind
# those whose entries are older.
_ASK = f"""
    INSERT INTO permit AS p (n, owner, node, since, is_given)
    SELECT t.n, t.owner, o.id, {_SINCE}, false
    FROM thread t JOIN activity a ON a.n = t.n JOIN node o ON o.id = ? WHERE t.id = ?
    ON CONFLICT (n) DO UPDATE SET node = excluded.node, since = excluded.since,
        is_given = p.is_given AND p.node = excluded.node AND NOT ?
"""  # noqa: S608 - of constants
_GIVE = """
    WITH given AS (
        UPDATE permit SET is_given = true WHERE n IN (
            SELECT n FROM permit WHERE owner = ? AND NOT is_given ORDER BY since, n LIMIT greatest(
                0, ? - (SELECT count(*) FROM permit WHERE owner = ? AND is_given)
            )
        ) RETURNING n, node
    )
    SELECT pg_notify('treadle_' || 'inbox'::regclass::oid, json_build_object(
        'thread', t.id, 'node', g.node)::text)
    FROM given g JOIN thread t ON t.n = g.n WHERE t.id <> ? AND octet_length(t.id) < 2000
"""


def ask_permit(
    connection: PostgresConnection, node: int, thread_id: str, owner: str, most: int, is_next: bool
) -> bool:
    """Asks for a permit for a thread of a node, of `most` that its owner has.

    With `is_next` its permit is for a run that has ended. Without one the thread waits: its node is
    told when it has got one.
    """

    def change() -> Cursor:
        connection.execute(_ASK, (node, thread_id, is_next))
        _give(connection, owner, most, thread_id)
        return connection.execute(
            "SELECT p.is_given FROM permit p JOIN thread t ON t.n = p.n WHERE t.id = ?",
            (thread_id,),
        )

    row = _change(connection, owner, change).fetchone()
    return row is not None and row[0]


def end_permits(
    connection: PostgresConnection, node: int, threads: Mapping[str, Sequence[str]], most: int
) -> None:
    """Ends what threads of a node, by their owners, have or wait for; others get the permits."""
    for owner, ids in threads.items():

        def change(owner: str = owner, ids: Sequence[str] = ids) -> None:
            connection.execute(
                "DELETE FROM permit WHERE node = ?"
                " AND n IN (SELECT n FROM thread WHERE id = ANY(?))",
                (node, list(ids)),
            )
            _give(connection, owner, most, "")

        _change(connection, owner, change)


def keep_permits(connection: PostgresConnection, node: int, threads: Sequence[str]) -> None:
    """Gives permits to threads of a node that run already, even above the limit."""
    connection.execute(
        "INSERT INTO permit (n, owner, node, since, is_given)"  # noqa: S608 - of constants
        f" SELECT t.n, t.owner, t.node, {_SINCE}, true"
        " FROM thread t JOIN activity a ON a.n = t.n WHERE t.id = ANY(?) AND t.node = ?"
        " ON CONFLICT (n) DO UPDATE SET node = excluded.node, is_given = true",
        (list(threads), node),
    )


def with_permits(
    connection: PostgresConnection, node: int, threads: Sequence[str], most: int
) -> list[str]:
    """Returns those of the waiting `threads` that have a permit, or may get one if they ask.

    One that has lost its place, in a crash of the server or with an earlier node, asks again.
    """
    rows = connection.execute(
        """
        SELECT t.id FROM thread t LEFT JOIN permit w ON w.n = t.n AND w.node = ?
        WHERE t.id = ANY(?) AND (
            w.n IS NULL OR w.is_given
            OR ? > (SELECT count(*) FROM permit g WHERE g.owner = w.owner AND is_given)
        )
        """,
        (node, list(threads), most),
    )
    return [id for (id,) in rows.fetchall()]


def _give(connection: PostgresConnection, owner: str, most: int, asking: str) -> None:
    connection.execute(_GIVE, (owner, most, owner, asking))


def _change(connection: PostgresConnection, owner: str, change: Callable[[], T]) -> T:
    """Runs a change under the lock of an owner, in one transaction and one trip to the server."""
    with connection.raw.pipeline(), connection.transaction():
        connection.execute("SELECT set_config('synchronous_commit', 'off', true)")
        connection.execute(
            "SELECT pg_advisory_xact_lock('permit'::regclass::oid::int, hashtext(?))", (owner,)
        )
        return change()
