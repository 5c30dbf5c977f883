"""Periods of time as people name them."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from treadle.domain.passages import Period
from treadle.errors import InvalidInput
from treadle.memory.archive.period import Moment, moment, period

DAY = 86_400.0
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def test_nothing_is_all_of_time() -> None:
    assert period(None, None) == Period()


@pytest.mark.parametrize("day", ["2026-03-01", date(2026, 3, 1), " 20260301 "])
def test_a_day_is_in_it_as_a_whole(day: Moment) -> None:
    found = period(day, day)
    assert found.since == START
    assert found.until is not None
    assert START + DAY - 0.001 < found.until < START + DAY


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-03-05", "2026-03-01"),
        (date(2026, 3, 5), datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-05T10:00", "2026-03-01"),
    ],
)
def test_reversed_bounds_are_swapped(since: Moment, until: Moment) -> None:
    assert period(since, until) == period(until, since)
    assert period(since, until).since == moment(until)


def test_a_moment_of_the_last_day_keeps_its_place() -> None:
    found = period("2026-03-01T10:00Z", "2026-03-01")
    assert found.since == START + 10 * 3600
    assert found.until is not None
    assert found.until > START + 23 * 3600
    assert period("2026-03-01", "2026-03-01T10:00") == Period(START, START + 10 * 3600)


def test_what_names_no_zone_is_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert moment("2026-03-01T02:00+02:00") == moment(datetime(2026, 3, 1, 0, 0)) == START
    assert moment(datetime(2026, 3, 1, 2, tzinfo=east)) == START
    assert moment("2026-03-01") == START


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-03", "1.3.2026", 5.0])
def test_what_is_no_date_is_refused(text: Moment) -> None:
    with pytest.raises(InvalidInput, match="is no date"):
        period(text, None)


def test_a_week_is_no_day() -> None:
    for text in ("2026-W10", " 2026W10"):
        with pytest.raises(InvalidInput, match="is a week"):
            period(text, None)
    assert moment("2026-W10-1") == moment("2026-03-02")


def test_the_ends_of_the_calendar() -> None:
    assert period(date.min, date.max).since is not None
    assert moment(datetime.min) < 0 < moment(datetime.max)
    for text in ("0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"):
        with pytest.raises(InvalidInput, match="beyond"):
            moment(text)
