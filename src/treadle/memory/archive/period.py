"""Periods of time as people name them: dates and moments, both ends included; pure."""

import math
import re
from datetime import UTC, date, datetime, timedelta

from treadle.domain.passages import Period
from treadle.errors import InvalidInput

Moment = datetime | date | str
"""A moment, a whole day, or either of them in ISO 8601, such as `2026-03-01`.

What names no time zone is UTC.
"""

_DAY = timedelta(days=1)
_WEEK = re.compile(r"\d{4}-?W\d{2}")


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
