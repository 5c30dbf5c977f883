"""What may be put into the archive and asked of it, and how two rankings become one; pure.

Periods of time are as people name them: dates and moments, both ends included.

Scores of full text and of vectors cannot be compared, their ranks can: in reciprocal rank fusion,
each ranking gives 1 / (60 + rank), as in Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion
outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from msgspec import Struct

from treadle.domain.items import Role
from treadle.domain.passages import By, Filters, Kind, NewPassage, Period
from treadle.errors import InvalidInput

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

MAX_CHARS = 100_000

MAX_TAGS = 50
"""How many tags a text may have, and a search may ask for."""

MAX_TAG_CHARS = 200

_ROLES: tuple[str, ...] = get_args(Role)
_WAYS: tuple[str, ...] = get_args(By)

MAX_QUERY = 10_000
MAX_LIMIT = 100

DEPTH = 500
"""How many of the best are ranked in each way: beyond, there is no page."""

DAMPING = 60

Moment = datetime | date | str
"""A moment, a whole day, or either of them in ISO 8601, such as `2026-03-01`.

What names no time zone is UTC.
"""

_DAY = timedelta(days=1)
_WEEK = re.compile(r"\d{4}-?W\d{2}")


def new_passage(
    id: str, text: str, tags: Sequence[str] = (), created_at: float | None = None
) -> NewPassage:
    """Returns a passage, its tags once each; raises `InvalidInput` for what cannot be one.

    That is a text that is empty, too long or no UTF-8, tags that are empty, too long or too many,
    and a time that is no number.
    """
    if not text.strip():
        raise InvalidInput("The text is empty; the archive would never find it.")
    if len(text) > MAX_CHARS:
        raise InvalidInput(
            f"The text has {len(text)} characters, and may have {MAX_CHARS}; split it."
        )
    require_utf8(text)
    kept = tags_of(tags)
    if created_at is not None and not math.isfinite(created_at):
        raise InvalidInput("The time of a text must be a number of seconds.")
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
    """Returns the filters; raises `InvalidInput` for roles, tags and dates that are none."""
    if isinstance(roles, str):
        raise InvalidInput(f"Roles are a list; write roles=[{roles[:50]!r}].")
    for role in roles:
        if role not in _ROLES:
            raise InvalidInput(f"{role!r} is no role; the roles are {', '.join(_ROLES)}.")
    return Filters(
        kind=kind,
        thread_id=thread_id,
        roles=tuple(roles),
        any_tags=tags_of(any_tags),
        all_tags=tags_of(all_tags),
        period=period(since, until),
    )


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns tags, once each; raises `InvalidInput` for what is none, and for more than 50."""
    if isinstance(tags, str):
        raise InvalidInput(f"Tags are a list of texts; write [{tags[:50]!r}].")
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"These are {len(tags)} tags; at most {MAX_TAGS} are allowed.")
    for tag in tags:
        if not tag.strip() or len(tag) > MAX_TAG_CHARS or "\0" in tag:
            raise InvalidInput(
                f"A tag has from 1 to {MAX_TAG_CHARS} characters, and no NUL; not {tag[:50]!r}."
            )
        require_utf8(tag)
    return tuple(dict.fromkeys(tags))


def require_way(by: str) -> None:
    """Raises `InvalidInput` unless there is such a way to search."""
    if by not in _WAYS:
        raise InvalidInput(f"by={by[:50]!r} is no way to search; use {', '.join(_WAYS)}.")


def require_utf8(text: str) -> None:
    """Raises `InvalidInput` for a text that is not valid UTF-8, such as half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"The text is not valid UTF-8 at character {error.start}; decode it before."
        ) from error


def period(since: Moment | None, until: Moment | None) -> Period:
    """Returns the period between two moments, whichever is earlier; a day is in it as a whole.

    Raises `InvalidInput` for a text that is no date.
    """
    first = None if since is None else _bounds(since)
    last = None if until is None else _bounds(until)
    if first is not None and last is not None and last[1] < first[0]:
        first, last = last, first
    return Period(None if first is None else first[0], None if last is None else last[1])


def moment(moment: Moment) -> float:
    """Returns a moment in Unix seconds, of a day its beginning; raises as `period` does."""
    return _bounds(moment)[0]


def _bounds(moment: object) -> tuple[float, float]:
    """Returns the first and the last moment of what may be a day."""
    if isinstance(moment, str):
        moment = _parsed(moment)
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _seconds(moment), _seconds(moment)
    if not isinstance(moment, date):
        raise InvalidInput(
            f"{moment!r:.100} is no date; give a date, a datetime or a text in ISO 8601."
        )
    start = datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()
    return start, math.nextafter(start + _DAY.total_seconds(), 0)


def _seconds(moment: datetime) -> float:
    try:
        return moment.astimezone(UTC).timestamp()
    except OverflowError as error:
        raise InvalidInput(f"{moment.isoformat()} is beyond what a calendar holds.") from error


def _parsed(text: str) -> datetime | date:
    if _WEEK.fullmatch(text.strip()):
        raise InvalidInput(f"{text[:100]!r} is a week; name its first day and its last one.")
    try:
        return date.fromisoformat(text.strip())
    except ValueError:  # then it may name a time as well
        pass
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidInput(
            f"{text[:100]!r} is no date; write it like 2026-03-01 or 2026-03-01T14:30+01:00."
        ) from error


class Query(Struct, frozen=True):
    """What is searched for: terms of full text, or a vector of the `embedder`, or both; the
    newest without either.

    Rows `offset` to `offset + limit` of what is found are wanted, which are the first `DEPTH` at
    most.
    """

    filters: Filters
    terms: Sequence[str] | None
    vector: "Matrix | None"
    limit: int
    offset: int = 0
    embedder: str = ""


def require_bounds(text: str, limit: int, offset: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"The limit must be from 1 to {MAX_LIMIT}.")
    if offset < 0 or offset + limit > DEPTH:
        raise InvalidInput(
            f"A search goes through the best {DEPTH}, so offset and limit together cannot be more; "
            "filter by dates, tags or threads."
        )
    if len(text) > MAX_QUERY:
        raise InvalidInput(
            f"The query has {len(text)} characters and may have {MAX_QUERY}; shorten it."
        )


class Hit(Struct, frozen=True):
    """The row `n` of the index, with its score in one ranking."""

    n: int
    score: float


class Ranking:
    """Rows of the index, the best first, and what they got in each of the rankings.

    `text` and `vector` are the rankings of full text and of vectors, where there were any; with
    both, the rows are those of either, and newer ones come first where the scores are equal.
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

    def text(self, n: int) -> tuple[int, float] | None:
        """Returns the rank of a row by full text, which counts from 1, and its score."""
        return self._text.get(n)

    def vector(self, n: int) -> tuple[int, float] | None:
        """Returns the rank of a row by vectors, which counts from 1, and its score."""
        return self._vector.get(n)


def _places(hits: Sequence[Hit] | None) -> dict[int, tuple[int, float]]:
    return {hit.n: (rank, hit.score) for rank, hit in enumerate(hits or (), 1)}


def _fused(text: Sequence[Hit], vector: Sequence[Hit]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for hits in (text, vector):
        for rank, hit in enumerate(hits, DAMPING + 1):
            scores[hit.n] = scores.get(hit.n, 0.0) + 1 / rank
    return dict(sorted(scores.items(), key=lambda row: (-row[1], -row[0])))
