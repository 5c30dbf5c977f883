"""Searches the index: by words, by vectors, by both, or for the newest; within one owner only.

For use in one thread. Each search is one transaction, so that all rows it ranks still exist when
their passages are read.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from treadle.domain.passages import Filters, Found, Period
from treadle.errors import EmbeddingInvalid
from treadle.memory.archive.index_file import (
    SELECT,
    VectorFiles,
    VectorSpace,
    Written,
    json_array,
    passage_in,
    require_same_embedder,
    role_word,
    scope_word,
    space_of,
    tag_word,
    typed_errors,
    written_of,
)
from treadle.memory.archive.query import DEPTH, KINDS, ROLES, Hit, Query, Ranking, rarest
from treadle.memory.archive.words import terms

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Columns, Matrix, VectorFile

MATCHES = 2500
"""How many rows are ranked by the words of a query.

If more rows match, the most common words are dropped first. If a single word matches more rows,
the newest of them are ranked.
"""

ENOUGH = 100
"""With at least this many matches of the rarer words, the common words are not searched."""

MOST_OWNERS = 64
MOST_ROWS = 2_000_000
"""How much is kept in memory for searches by vectors; the least recently used owner leaves."""

_FIRST = 64
_MANY = 4


class Answer(Struct, frozen=True):
    """The passages found, the rows whose vectors are missing, and the owner's count of writes."""

    found: list[Found]
    broken: list[int]
    written: Written


class _Place(Struct, frozen=True):
    """The part of the index that is searched: an owner, or one of its threads.

    - `source`: the thread; None for all threads of the owner.
    - `aside`: without a `source`, threads of delegated work, whose messages are left out.
    - `passages`: how many passages the owner has.
    - `is_most`: whether these are at least a quarter of all passages.
    """

    owner: int
    source: int | None
    aside: tuple[int, ...]
    passages: int
    is_most: bool


class Finder:
    """Searches the index through `connection`, and the vectors in `files`."""

    def __init__(self, connection: sqlite3.Connection, files: VectorFiles) -> None:
        self._connection = connection
        self._files = files
        self._columns: OrderedDict[int, Columns] = OrderedDict()

    def close(self) -> None:
        """Closes the connection."""
        with typed_errors():
            self._connection.close()

    def find(self, owner: str, query: Query) -> Answer:
        """Returns the passages that fit the query best; raises as `Index` does."""
        with typed_errors():
            self._connection.execute("BEGIN")
            try:
                return self._find(owner, query)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def _find(self, owner: str, query: Query) -> Answer:
        written = written_of(self._connection, owner)
        place = self._place(owner, query.filters)
        if place is None:
            return Answer([], [], written)
        broken: list[int] = []
        texts = vectors = None
        if query.words is not None:
            texts = self._by_text(place, terms(query.words), query.filters)
        if query.vector is not None:
            vectors = self._by_vector(place, query, query.vector, broken)
        if texts is None and vectors is None:
            texts = self._newest(place, query.filters)
        ranking = Ranking(texts, vectors)
        return Answer(self._found(ranking, query), broken, written)

    def _place(self, owner: str, filters: Filters) -> _Place | None:
        row = self._connection.execute(
            "SELECT o, passages FROM owner WHERE name = ?", (owner,)
        ).fetchone()
        if row is None:
            return None
        (rows,) = self._connection.execute("SELECT coalesce(max(n), 0) FROM passage").fetchone()
        is_most = row[1] * _MANY >= rows
        sources = "SELECT s FROM source WHERE o = ? AND"
        if filters.thread_id:
            source = self._connection.execute(
                f"{sources} thread_id = ?", (row[0], filters.thread_id)
            ).fetchone()
            return None if source is None else _Place(row[0], source[0], (), row[1], is_most)
        aside = self._connection.execute(f"{sources} aside", (row[0],)).fetchall()
        return _Place(row[0], None, tuple(s for (s,) in aside), row[1], is_most)

    # By words

    def _by_text(self, place: _Place, terms: Sequence[str], filters: Filters) -> list[Hit]:
        if not terms:
            return []
        rare, number = self._rare(terms, place)
        near = self._near(place.owner, filters.period) if number > MATCHES else ""
        scores = self._matches(place, filters, rare, near)
        if len(rare) < len(terms) and len(scores) < ENOUGH:
            # There is room for rows that match only the common words.
            near = near or self._near(place.owner, filters.period)
            common = self._matches(place, filters, terms, near)
            scores |= {n: max(score, scores.get(n, score)) for n, score in common.items()}
        best = sorted(scores.items(), key=lambda row: (-row[1], -row[0]))
        return [Hit(n, score) for n, score in best[:DEPTH]]

    def _matches(
        self, place: _Place, filters: Filters, terms: Sequence[str], near: str
    ) -> dict[int, float]:
        """Returns the best of the `MATCHES` newest rows that match, with their BM25."""
        match, where, values = _text_conditions(place, filters)
        join = " JOIN passage p ON p.n = w.rowid" if where else ""
        newest = (
            "SELECT w.rowid AS n, -bm25(words, 1.0, 0.0) AS score"  # noqa: S608 - of constants
            f" FROM words w{join} WHERE words MATCH ?{near}{where} ORDER BY w.rowid DESC LIMIT ?"
        )
        words = " AND ".join([*match, f"text : ({' OR '.join(terms)})"])
        rows = self._connection.execute(
            f"SELECT n, score FROM ({newest}) ORDER BY score DESC, n DESC LIMIT ?",  # noqa: S608 - of constants
            (words, *values, MATCHES, DEPTH),
        )
        return dict(rows.fetchall())

    def _near(self, owner: int, period: Period) -> str:
        """Returns a condition on the number of a row `w`, which narrows a search in a period.

        Rows are numbered as they come, so those of a period are mostly close to each other. FTS5
        uses the bounds, and skips the rows outside instead of looking up the time of each.
        """
        if period == Period():
            return ""
        where, values = _period_condition(period)
        bounds = "SELECT min(p.n), max(p.n) FROM passage p WHERE p.o = ?"
        first, last = self._connection.execute(bounds + where, (owner, *values)).fetchone()
        return f" AND w.rowid BETWEEN {int(first or 0)} AND {int(last or 0)}"

    def _rare(self, terms: Sequence[str], place: _Place) -> tuple[list[str], int]:
        """Returns the rarest words of a query, and the most rows that they can match.

        Above `MATCHES`, the number only tells that it is more.
        """
        if place.passages <= MATCHES:
            return list(terms), place.passages
        # Counts rows of all owners: that is faster, and enough to tell common words from rare ones.
        counts = {term: self._count(f"text : {term}") for term in terms}
        return rarest(counts, MATCHES)

    def _count(self, match: str) -> int:
        (count,) = self._connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)",
            (match, MATCHES + 1),
        ).fetchone()
        return count

    # By vectors

    def _by_vector(
        self, place: _Place, query: Query, vector: "Matrix", broken: list[int]
    ) -> list[Hit]:
        space, filters = space_of(self._connection), query.filters
        require_same_embedder(space, query.embedder)
        if space.dimensions is None or not vector.any():
            return []  # no vectors yet, or the query has no direction
        if space.dimensions != len(vector):
            raise EmbeddingInvalid(
                f"The embedder returned a vector of the size {len(vector)} for the query, and of "
                f"{space.dimensions} for the texts; all must have one size."
            )
        file = self._files.get(space)
        columns = self._read_columns(place.owner, space, file, broken)
        tagged = self._tagged(place.owner, filters)
        chosen = columns.chosen(filters, source=place.source, aside=place.aside, tagged=tagged)
        n, slots = (
            (columns.n, columns.slot) if chosen.all() else (columns.n[chosen], columns.slot[chosen])
        )
        scores = file.scores(slots, vector)
        return file.best(scores, n, DEPTH)

    def _read_columns(
        self, owner: int, space: VectorSpace, file: "VectorFile", broken: list[int]
    ) -> "Columns":
        """Returns the columns of an owner, brought up to date.

        Rows with a missing vector are added to `broken`.
        """
        (changes,) = self._connection.execute(
            "SELECT changes FROM owner WHERE o = ?", (owner,)
        ).fetchone()
        version = (space.file, changes)
        columns = self._columns.pop(owner, None)
        if columns is None or columns.version != version:
            columns = self._files.columns(version)
        rows = self._connection.execute(
            "SELECT stamp, n, slot, s, kind, role, at FROM passage"
            " WHERE slot >= 0 AND o = ? AND stamp > ? ORDER BY stamp",
            (owner, columns.stamp),
        ).fetchall()
        broken += columns.add(rows, file)
        self._columns[owner] = columns
        while len(self._columns) > 1 and self._is_full():
            self._columns.popitem(last=False)
        return columns

    def _is_full(self) -> bool:
        rows = sum(len(columns) for columns in self._columns.values())
        return len(self._columns) > MOST_OWNERS or rows > MOST_ROWS

    def _tagged(self, owner: int, filters: Filters) -> "list[list[int]]":
        """Returns the rows with any of `any_tags`, and the rows with each of `all_tags`."""
        groups = [[tag] for tag in filters.all_tags]
        tagged: list[list[int]] = []
        for tags in [filters.any_tags, *groups] if filters.any_tags else groups:
            # As one JSON value: sqlite3 releases the interpreter lock for each row it fetches.
            (rows,) = self._connection.execute(
                "SELECT '[' || coalesce(group_concat(n), '') || ']' FROM tag"
                " WHERE o = ? AND name IN (SELECT value FROM json_each(?))",
                (owner, json_array(tags)),
            ).fetchone()
            tagged.append(msgspec.json.decode(rows, type=list[int]))
        return tagged

    # The newest, and reading the passages

    def _newest(self, place: _Place, filters: Filters) -> list[Hit]:
        where, values = _conditions(place, filters)
        rows = self._connection.execute(
            f"SELECT p.n FROM passage p WHERE TRUE {where} ORDER BY p.at DESC, p.n DESC LIMIT ?",  # noqa: S608 - it is made of constants
            (*values, DEPTH),
        )
        return [Hit(n, 0.0) for (n,) in rows.fetchall()]

    def _found(self, ranking: Ranking, query: Query) -> list[Found]:
        last = query.offset + query.limit
        chosen = self._without_copies(ranking.rows, last)[query.offset :]
        among = "WHERE p.n IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(f"{SELECT} {among}", (json_array(chosen),))
        passages = {row[0]: passage_in(row) for row in rows.fetchall()}
        by_words = query.words is not None
        return [ranking.found(n, passages[n], by_words=by_words) for n in chosen]

    def _without_copies(self, rows: Sequence[int], number: int) -> list[int]:
        """Returns rows without the copies that forks made: the same event with the same time.

        The id alone is not enough, because some providers use the same message ids on every thread.
        """
        firsts: dict[tuple[str, int, float], int] = {}
        start = 0
        while len(firsts) < number and start < len(rows):
            some = rows[start : start + max(_FIRST, number)]
            start += len(some)
            found = self._connection.execute(
                "SELECT n, id, seq, at FROM passage WHERE n IN (SELECT value FROM json_each(?))",
                (json_array(some),),
            )
            names = {n: (id, seq, at) for n, id, seq, at in found.fetchall()}
            for n in some:
                firsts.setdefault(names[n], n)
        return list(firsts.values())[:number]


def _text_conditions(place: _Place, filters: Filters) -> tuple[list[str], str, list[object]]:
    """Returns conditions for full text, and a condition in SQL on the passage `p` with its values.

    Full text finds the rows of an owner by the owner's word. If most rows have that word, reading
    its long list of rows costs more than checking the owner of the rows that match the query.
    """
    where, values = _period_condition(filters.period)
    groups = [[tag_word(tag)] for tag in filters.all_tags]
    groups.append([tag_word(tag) for tag in filters.any_tags])
    groups.append([role_word(role) for role in filters.roles])
    kinds = KINDS if filters.kind is None else (filters.kind,)
    if place.source is not None:
        groups.append([scope_word("t", place.source, kind) for kind in kinds])
    elif place.is_most:
        owned, owner_values = _owner_condition(place, filters)
        where += owned
        values += owner_values
    else:
        groups.append([scope_word("o", place.owner, kind) for kind in kinds])
    match = [" OR ".join(f'"{word}"' for word in group) for group in groups if group]
    return [f"scope : ({words})" for words in match], where, values


def _owner_condition(place: _Place, filters: Filters) -> tuple[str, list[object]]:
    """Returns the condition on a row `p` for the owner and the kind, with its values."""
    where, values = " AND p.o = ?", list[object]([place.owner])
    if place.aside:
        where += " AND NOT (p.kind = ? AND p.s IN (SELECT value FROM json_each(?)))"
        values += [KINDS.index("message"), json_array(place.aside)]
    if filters.kind is not None:
        where += " AND p.kind = ?"
        values.append(KINDS.index(filters.kind))
    return where, values


def _conditions(place: _Place, filters: Filters) -> tuple[str, list[object]]:
    """Returns the condition on a row `p` for all filters, with its values."""
    where, values = _period_condition(filters.period)
    groups = [[tag] for tag in filters.all_tags]
    for tags in [filters.any_tags, *groups] if filters.any_tags else groups:
        where += (
            " AND EXISTS (SELECT 1 FROM tag WHERE o = ? AND n = p.n"
            " AND name IN (SELECT value FROM json_each(?)))"
        )
        values += [place.owner, json_array(tags)]
    if place.source is not None:
        where += " AND p.s = ?"
        values.append(place.source)
    owned, owner_values = _owner_condition(place, filters)
    where += owned
    values += owner_values
    if filters.roles:
        where += " AND p.role IN (SELECT value FROM json_each(?))"
        values.append(json_array([ROLES.index(role) for role in filters.roles]))
    return where, values


def _period_condition(period: Period) -> tuple[str, list[object]]:
    """Returns the condition on a row `p` for a period, with its values."""
    where, values = "", list[object]()
    if period.since is not None:
        where += " AND p.at >= ?"
        values.append(period.since)
    if period.until is not None:
        where += " AND p.at <= ?"
        values.append(period.until)
    return where, values
