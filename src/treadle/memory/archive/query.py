"""Validates what is put into the archive and what is asked of it, and merges rankings; pure."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from msgspec import Struct

from treadle.domain.arguments import (
    require_collection,
    require_integer,
    require_string,
    require_text,
    shown,
)
from treadle.domain.items import Role
from treadle.domain.passages import By, Filters, Found, Kind, NewPassage, Passage, Period
from treadle.errors import InvalidInput

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

MAX_CHARS = 100_000
"""The longest text of the archive."""

MAX_TAGS = 50
"""The most tags that a text may have, and that a search may ask for."""

MAX_TAG_CHARS = 200

MAX_QUERY = 10_000
"""The longest query, in characters."""

MAX_LIMIT = 100
"""The most results of one search."""

DEPTH = 500
"""How many of the best passages are ranked in each way; no page goes beyond them."""

KINDS: tuple[Kind, ...] = ("archive", "message")
"""The kinds of passages, by the number in their rows."""

ROLES: tuple[Role | None, ...] = (None, "user", "assistant", "system", "developer")
"""The roles of messages, by the number in their rows."""

DAMPING = 60
"""The constant k of reciprocal rank fusion; the paper uses 60."""

Moment = datetime | date | str
"""A moment, a whole day, or either of them in ISO 8601, such as `2026-03-01`.

UTC unless it names a time zone.
"""

_ROLES: tuple[str, ...] = get_args(Role)
_WAYS: tuple[str, ...] = get_args(By)
_DAY = timedelta(days=1)
_WEEK = re.compile(r"\d{4}-?W\d{2}")


class Query(Struct, frozen=True):
    """A search: by the `words` of a text, by the `vector` of the `embedder`, or by both.

    Without either it finds the newest passages. `offset` and `limit` choose among the first
    `DEPTH` results.
    """

    filters: Filters
    words: str | None
    vector: "Matrix | None"
    limit: int
    offset: int = 0
    embedder: str = ""


class Hit(Struct, frozen=True):
    """The row `n` of the index, with its score in one ranking."""

    n: int
    score: float


class Ranking:
    """Rows of the index, the best first, with their rank and score in each ranking.

    - `text`, `vector`: the hits by full text and by vectors, the best first; None if that way was
      not searched.

    With both, `rows` are the rows of either, merged by reciprocal rank fusion: BM25 and cosines
    cannot be compared, but ranks can, so each ranking adds 1 / (60 + rank). Newer rows come first
    among equal scores. Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms
    Condorcet and individual Rank Learning Methods", SIGIR 2009.
    """

    def __init__(self, text: Sequence[Hit] | None, vector: Sequence[Hit] | None) -> None:
        self._text = _places(text)
        self._vector = _places(vector)
        self.scores: dict[int, float]
        if text is not None and vector is not None:
            self.scores = _fused(text, vector)
        else:
            self.scores = {hit.n: hit.score for hit in text or vector or ()}
        self.rows: list[int] = list(self.scores)

    def found(self, n: int, passage: Passage, *, by_words: bool) -> Found:
        """Returns the passage of the row `n` as a result; without `by_words` it has no BM25."""
        text_rank, text_score = (self._text if by_words else {}).get(n, (None, None))
        vector_rank, vector_score = self._vector.get(n, (None, None))
        return Found(
            passage=passage,
            score=self.scores[n],
            text_rank=text_rank,
            text_score=text_score,
            vector_rank=vector_rank,
            vector_score=vector_score,
        )


def rarest(counts: Mapping[str, int], most: int) -> tuple[list[str], int]:
    """Returns the rarest words: as many as match `most` rows, but at least one.

    The most common words distinguish the least and cost the most. Also returns the most rows that
    the words can match.
    """
    kept: list[str] = []
    total = 0
    for word in sorted(counts, key=counts.__getitem__):
        if kept and total + counts[word] > most:
            break
        kept.append(word)
        total += counts[word]
    return kept, total


def new_passage(
    id: str, text: str, tags: Sequence[str] = (), created_at: float | None = None
) -> NewPassage:
    """Returns a validated passage, with each tag once.

    - `text`: not empty, valid UTF-8, at most 100,000 characters.
    - `tags`: at most 50, see `tags_of`.
    - `created_at`: Unix seconds; None for the time at which the passage is added.

    Raises `InvalidInput`.
    """
    if not require_text("text", text).strip():
        raise InvalidInput("The text is empty; the archive could never find it.")
    if len(text) > MAX_CHARS:
        raise InvalidInput(
            f"The text has {len(text)} characters; at most {MAX_CHARS} are allowed. Split it."
        )
    kept = tags_of(tags)
    if created_at is not None and not math.isfinite(created_at):
        raise InvalidInput(f"created_at must be a finite number of seconds, not {created_at}.")
    return NewPassage(id, text, kept, created_at)


def filters_of(
    kind: Kind,
    *,
    thread_id: str = "",
    roles: Sequence[Role] = (),
    any_tags: Sequence[str] = (),
    all_tags: Sequence[str] = (),
    since: Moment | None = None,
    until: Moment | None = None,
) -> Filters:
    """Returns validated filters; raises `InvalidInput` for unknown roles and bad tags and dates."""
    if isinstance(roles, str):
        raise InvalidInput(f"roles is a list; write roles=[{roles[:50]!r}].")
    require_collection("roles", roles)
    for role in roles:
        if role not in _ROLES:
            raise InvalidInput(f"Unknown role {shown(role)}; the roles are {', '.join(_ROLES)}.")
    require_text("thread_id", thread_id)
    return Filters(
        kind=kind,
        thread_id=thread_id,
        roles=tuple(roles),
        any_tags=tags_of(any_tags),
        all_tags=tags_of(all_tags),
        period=period(since, until),
    )


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns each tag once; raises `InvalidInput` for more than 50 tags and for invalid ones.

    A tag has 1 to 200 characters, is valid UTF-8 and contains no NUL.
    """
    if isinstance(tags, str):
        raise InvalidInput(f"Tags are a list of texts; write [{tags[:50]!r}].")
    require_collection("tags", tags)
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"There are {len(tags)} tags; at most {MAX_TAGS} are allowed.")
    for tag in tags:
        require_text("A tag", tag)
        # SQLite does not compare texts with NUL reliably; see https://sqlite.org/nulinstr.html
        if not tag.strip() or len(tag) > MAX_TAG_CHARS or "\0" in tag:
            raise InvalidInput(
                f"The tag {tag[:50]!r} is not valid; a tag has from 1 to {MAX_TAG_CHARS} "
                "characters and no NUL."
            )
    return tuple(dict.fromkeys(tags))


def require_way(by: str) -> None:
    """Raises `InvalidInput` unless `by` is a way to search."""
    if by not in _WAYS:
        raise InvalidInput(f"by={shown(by)} is not a way to search; use {', '.join(_WAYS)}.")


def require_bounds(text: str, limit: int, offset: int) -> None:
    """Raises `InvalidInput` for a query that is too long, and for pages out of bounds."""
    require_integer("limit", limit)
    require_integer("offset", offset)
    require_string("The query", text)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit must be from 1 to {MAX_LIMIT}, not {shown(limit)}.")
    if offset < 0 or offset + limit > DEPTH:
        raise InvalidInput(
            f"A search ranks the best {DEPTH} passages, so offset must be from 0 to "
            f"{DEPTH - limit}, not {shown(offset)}; to find others, filter by dates, tags or "
            "threads."
        )
    if len(text) > MAX_QUERY:
        raise InvalidInput(
            f"The query has {len(text)} characters; at most {MAX_QUERY} are allowed. Shorten it."
        )


def period(since: Moment | None, until: Moment | None) -> Period:
    """Returns the period between two moments, in either order; whole days are included.

    Raises `InvalidInput` for a text that is not a date.
    """
    first = None if since is None else _bounds(since)
    last = None if until is None else _bounds(until)
    if first is not None and last is not None and last[1] < first[0]:
        first, last = last, first
    return Period(None if first is None else first[0], None if last is None else last[1])


def moment(moment: Moment) -> float:
    """Returns a moment in Unix seconds, the beginning for a day; raises as `period` does."""
    return _bounds(moment)[0]


def _bounds(moment: object) -> tuple[float, float]:
    """Returns the first and the last second of a day, or a moment twice."""
    if isinstance(moment, str):
        moment = _parsed(moment)
    # First: a datetime is a date as well.
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _seconds(moment), _seconds(moment)
    if not isinstance(moment, date):
        raise InvalidInput(
            f"{moment!r:.100} is not a date; pass a date, a datetime or a text in ISO 8601."
        )
    start = datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()
    return start, math.nextafter(start + _DAY.total_seconds(), 0)


def _seconds(moment: datetime) -> float:
    try:
        return moment.astimezone(UTC).timestamp()
    except OverflowError as error:
        raise InvalidInput(f"{moment.isoformat()} is beyond the years 1 to 9999.") from error


def _parsed(text: str) -> datetime | date:
    # `date.fromisoformat` takes a week for its Monday, which is probably not what was meant.
    if _WEEK.fullmatch(text.strip()):
        raise InvalidInput(f"{text[:100]!r} is a week; pass its first and its last day.")
    try:
        return date.fromisoformat(text.strip())
    except ValueError:  # it may contain a time as well
        pass
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidInput(
            f"{text[:100]!r} is not a date; write it like 2026-03-01 or 2026-03-01T14:30+01:00."
        ) from error


def _places(hits: Sequence[Hit] | None) -> dict[int, tuple[int, float]]:
    return {hit.n: (rank, hit.score) for rank, hit in enumerate(hits or (), 1)}


def _fused(text: Sequence[Hit], vector: Sequence[Hit]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for hits in (text, vector):
        for rank, hit in enumerate(hits, DAMPING + 1):
            scores[hit.n] = scores.get(hit.n, 0.0) + 1 / rank
    return dict(sorted(scores.items(), key=lambda row: (-row[1], -row[0])))
