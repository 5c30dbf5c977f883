"""Searches the index in a PostgreSQL database: by words, by vectors, by both, or for the newest.

PostgreSQL's own ranking knows nothing of how rare a word is, so BM25 is computed: `ts_rank` of one
word is a function of how often it occurs, which is inverted. Vectors are compared exactly, all of
an owner: an approximate index covers all owners, and finds too little of a small one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from treadle.domain.passages import Filters, Found, Passage
from treadle.errors import EmbeddingInvalid
from treadle.journal.postgres_connection import PostgresConnection
from treadle.memory.archive.pages import Statistics
from treadle.memory.archive.postgres_vectors import vector_type
from treadle.memory.archive.query import DEPTH, Hit, Query, Ranking, rarest

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

MATCHES = 2500
"""How many rows are ranked by the words of a query: the newest that match."""

ENOUGH = 100
"""With at least this many matches of the rarer words, the common words are not searched."""

COMPARED = 10_000
"""How many vectors are compared without pgvector: those of the newest passages that fit."""

# Constants of BM25 as FTS5 has them, and pi²/6, to which the sum of 1/n² converges.
_K1, _B, _LIMIT = 1.2, 0.75, 1.64493406685

_SELECT = """
    SELECT p.n, p.id, p.text, p.kind, t.id, p.seq, p.at, p.run_id, p.role, p.tags
    FROM archive_passage p JOIN thread t ON t.n = p.t
"""
_RANKED = f"""
    WITH hits AS (
        SELECT p.n, p.tokens, p.words || ''::tsvector AS words FROM archive_passage p
        WHERE p.words @@ ?::tsquery AND %s ORDER BY p.n DESC LIMIT ?
    ), often AS (
        SELECT h.n, w.idf, 1 - {_B} + {_B} * h.tokens / ? AS length,
            round(1 / ({_LIMIT} * (1 - w.rank)) - 0.5) AS tf
        FROM hits h CROSS JOIN LATERAL (
            SELECT q.idf, ts_rank('{{1,1,1,1}}', h.words, q.word::tsquery) AS rank
            FROM unnest(?::text[], ?::float8[]) AS q (word, idf) OFFSET 0
        ) AS w WHERE w.rank > 0
    )
    SELECT n, sum(idf * tf * {_K1 + 1} / (tf + {_K1} * length)) AS score
    FROM often GROUP BY n ORDER BY score DESC, n DESC LIMIT {DEPTH}
"""  # noqa: S608 - of constants
_JOINED = "archive_passage p JOIN archive_vector v ON v.o = p.o AND v.digest = p.digest AND v.e = ?"


class _Place(NamedTuple):
    """The part of the index that is searched, and the condition on a row `p` of it."""

    owner: int
    thread: int | None
    passages: int
    tokens: int
    where: str
    values: tuple[object, ...]


def find(
    connection: PostgresConnection,
    owner: str,
    query: Query,
    terms: Sequence[str],
    embedder: tuple[int, int | None] | None,
) -> list[Found]:
    """Returns the passages that fit the query best.

    - `terms`: the stems of the words of the query.
    - `embedder`: the number of the embedder and the length of its vectors, if it has one.
    """
    place = _place(connection, owner, query.filters)
    if place is None:
        return []
    texts = vectors = None
    if query.words is not None:
        texts = _by_text(connection, place, terms)
    if query.vector is not None and embedder is not None:
        vectors = _by_vector(connection, place, query.vector, embedder)
    if texts is None and vectors is None:
        texts = _newest(connection, place)
    ranking = Ranking(texts, vectors)
    last = query.offset + query.limit
    chosen = _without_copies(connection, ranking.rows)[query.offset : last]
    rows = connection.execute(f"{_SELECT} WHERE p.n = ANY(?)", (chosen,)).fetchall()
    passages = {row[0]: _passage(row) for row in rows}
    by_words = query.words is not None
    return [ranking.found(n, passages[n], by_words=by_words) for n in chosen]


def passages(connection: PostgresConnection, owner: str, passage_id: str) -> list[Passage]:
    """Returns the passage `passage_id` of an owner, once for each thread that has it."""
    rows = connection.execute(
        f"{_SELECT} WHERE p.o = (SELECT o FROM archive_owner WHERE name = ?)"  # noqa: S608 - of constants
        " AND p.kind = 'archive' AND p.id = ? ORDER BY p.n",
        (owner, passage_id),
    )
    return [_passage(row) for row in rows.fetchall()]


def statistics(connection: PostgresConnection, owner: str, embedder: int) -> Statistics:
    """Returns the size of an owner's part of the index; `embedder` is 0 without one."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE p.kind = 'archive'),"
        " count(*) FILTER (WHERE p.kind = 'message'), count(DISTINCT p.t),"
        " count(*) FILTER (WHERE v.vector IS NULL)"
        " FROM archive_passage p LEFT JOIN archive_vector v"
        " ON v.o = p.o AND v.e = ? AND v.digest = p.digest"
        " WHERE p.o = (SELECT o FROM archive_owner WHERE name = ?)",
        (embedder, owner),
    ).fetchone()
    return Statistics(*row)


def _place(connection: PostgresConnection, owner: str, filters: Filters) -> _Place | None:
    row = connection.execute(
        "SELECT o, passages, tokens FROM archive_owner WHERE name = ?", (owner,)
    ).fetchone()
    if row is None:
        return None
    where, values, thread = ["p.o = ?"], list[object]([row[0]]), None

    def require(condition: str, value: object) -> None:
        where.append(condition)
        values.append(value)

    if filters.thread_id:
        found = connection.execute(
            "SELECT n FROM thread WHERE id = ? AND owner = ?", (filters.thread_id, owner)
        ).fetchone()
        if found is None:
            return None
        (thread,) = found
        require("p.t = ?", thread)
    else:
        where.append("NOT p.aside")
    if filters.kind is not None:
        require("p.kind = ?", filters.kind)
    if filters.roles:
        require("p.role = ANY(?)", list(filters.roles))
    if filters.any_tags:
        require("p.tags && ?::text[]", list(filters.any_tags))
    if filters.all_tags:
        require("p.tags @> ?::text[]", list(filters.all_tags))
    if filters.period.since is not None:
        require("p.at >= ?", float(filters.period.since))
    if filters.period.until is not None:
        require("p.at <= ?", float(filters.period.until))
    return _Place(row[0], thread, row[1], row[2], " AND ".join(where), tuple(values))


def _by_text(connection: PostgresConnection, place: _Place, terms: Sequence[str]) -> list[Hit]:
    if not terms:
        return []
    # The planner does not know how many rows a word has, and would read all of them.
    connection.execute("SET LOCAL enable_seqscan = off")
    counts = dict(
        connection.execute(
            "SELECT word, (SELECT count(*) FROM (SELECT 1 FROM archive_passage p"
            " WHERE p.words @@ (? || word)::tsquery LIMIT ?) AS c) FROM unnest(?::text[]) AS word",
            (f"'/o{place.owner}' & ", MATCHES + 1, [f"'{term}'" for term in terms]),
        ).fetchall()
    )
    rare, _ = rarest(counts, MATCHES)
    scores = _matches(connection, place, counts, rare)
    if len(rare) < len(counts) and len(scores) < ENOUGH:
        # There is room for rows that match only the common words.
        for n, score in _matches(connection, place, counts, list(counts)).items():
            scores[n] = max(score, scores.get(n, score))
    connection.execute("SET LOCAL enable_seqscan = on")
    best = sorted(scores.items(), key=lambda row: (-row[1], -row[0]))
    return [Hit(n, score) for n, score in best[:DEPTH]]


def _matches(
    connection: PostgresConnection,
    place: _Place,
    counts: Mapping[str, int],
    terms: Sequence[str],
) -> dict[int, float]:
    """Returns the best of the `MATCHES` newest rows that match, with their BM25."""
    scope = f"'/o{place.owner}'" if place.thread is None else f"'/t{place.thread}'"
    total = max(place.passages, 1)
    rows = connection.execute(
        _RANKED % place.where,
        (
            f"{scope} & ({' | '.join(terms)})", *place.values, MATCHES,
            max(place.tokens / total, 1.0), list(terms), [_idf(counts[t], total) for t in terms],
        ),
    )  # fmt: skip
    return dict(rows.fetchall())


def _idf(count: int, total: int) -> float:
    """Returns how rare a word is, as FTS5 does: hardly more than 0 if half of the rows have it."""
    total = max(total, count)
    return max(math.log((total - count + 0.5) / (count + 0.5)), 1e-6)


def _by_vector(
    connection: PostgresConnection,
    place: _Place,
    vector: "Matrix",
    embedder: tuple[int, int | None],
) -> list[Hit]:
    number, size = embedder
    if size is None or not vector.any():
        return []  # no vectors yet, or the query has no direction
    if size != len(vector):
        raise EmbeddingInvalid(
            f"The embedder returned a vector of the size {len(vector)} for the query, and of "
            f"{size} for the texts; all must have one size."
        )
    where = f"FROM {_JOINED} WHERE {place.where} AND v.vector IS NOT NULL AND NOT v.is_blank"
    type = vector_type(connection)
    if type:
        rows = connection.execute(
            f"SELECT p.n, -(v.vector OPERATOR({type[:-7]}.<#>) ?::float8[]::{type}) AS score"
            f" {where} ORDER BY score DESC, p.n DESC LIMIT {DEPTH}",
            (vector.tolist(), number, *place.values),
        )
        return [Hit(n, score) for n, score in rows.fetchall()]
    rows = connection.execute(
        f"SELECT p.n, v.vector {where} ORDER BY p.n DESC LIMIT {COMPARED}",
        (number, *place.values),
    ).fetchall()
    best: Callable[..., list[Hit]] = import_module("treadle.memory.archive.vectors").best_of
    return best(rows, vector, DEPTH)


def _newest(connection: PostgresConnection, place: _Place) -> list[Hit]:
    rows = connection.execute(
        f"SELECT p.n FROM archive_passage p WHERE {place.where}"  # noqa: S608 - of constants
        f" ORDER BY p.at DESC, p.n DESC LIMIT {DEPTH}",
        place.values,
    )
    return [Hit(n, 0.0) for (n,) in rows.fetchall()]


def _without_copies(connection: PostgresConnection, rows: Sequence[int]) -> list[int]:
    """Returns rows without the copies that forks made: the same event with the same time."""
    found = connection.execute(
        "SELECT n, id, seq, at FROM archive_passage WHERE n = ANY(?::bigint[])", (list(rows),)
    )
    names = {n: (id, seq, at) for n, id, seq, at in found.fetchall()}
    firsts: dict[tuple[str, int, float], int] = {}
    for n in rows:
        firsts.setdefault(names[n], n)
    return list(firsts.values())


def _passage(row: Sequence[Any]) -> Passage:
    _, id, text, kind, thread_id, seq, at, run_id, role, tags = row
    return Passage(
        id=id, text=text, kind=kind, thread_id=thread_id, seq=seq, created_at=at, run_id=run_id,
        role=role, tags=tuple(tags),
    )  # fmt: skip
