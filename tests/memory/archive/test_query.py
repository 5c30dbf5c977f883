"""Validation of passages, filters and periods, and the merging of two rankings."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from treadle.domain.passages import Filters, Passage, Period
from treadle.errors import InvalidInput
from treadle.memory.archive.query import (
    MAX_CHARS,
    Hit,
    Moment,
    Ranking,
    filters_of,
    moment,
    new_passage,
    period,
    require_way,
)

DAY = 86_400.0
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()

# Texts that are put in


def test_what_may_be_put_in() -> None:
    passage = new_passage("p", "text", ["a", "b", "a"], 5.0)
    assert (passage.id, passage.text, passage.tags, passage.created_at) == (
        "p", "text", ("a", "b"), 5.0
    )  # fmt: skip
    assert new_passage("p", "x" * MAX_CHARS).tags == ()


@pytest.mark.parametrize(
    ("text", "tags", "at", "says"),
    [
        (" \n", [], None, "empty"),
        ("x" * (MAX_CHARS + 1), [], None, "at most 100000 are allowed. Split it"),
        ("\ud800", [], None, "not valid UTF-8"),
        ("x", "tag", None, "list of texts"),
        ("x", ["t"] * 51, None, "51 tags"),
        ("x", [" "], None, "from 1 to 200"),
        ("x", ["t" * 201], None, "from 1 to 200"),
        ("x", ["\udfff"], None, "not valid UTF-8"),
        ("x", ["a\0b"], None, "no NUL"),
        ("x", [], float("nan"), "number of seconds"),
    ],
)
def test_passages_that_are_refused(text: str, tags: list[str], at: float | None, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        new_passage("p", text, tags, at)


# Filters


def test_what_may_be_asked_for() -> None:
    assert filters_of("archive") == Filters(kind="archive")
    assert filters_of(
        "message",
        thread_id="t",
        roles=["user", "system"],
        any_tags=["a", "a"],
        all_tags=["b"],
        since="1970-01-01T00:00",
    ) == Filters(
        kind="message",
        thread_id="t",
        roles=("user", "system"),
        any_tags=("a",),
        all_tags=("b",),
        period=Period(0.0, None),
    )
    for way in ("both", "text", "vector"):
        require_way(way)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"roles": "user"}, r"roles=\['user'\]"),
        ({"roles": ["tool"]}, "Unknown role 'tool'; the roles are user"),
        ({"any_tags": "blue"}, r"\['blue'\]"),
        ({"all_tags": "blue"}, r"\['blue'\]"),
        ({"all_tags": [""]}, "from 1 to 200"),
        ({"any_tags": ["a\0"]}, "no NUL"),
        ({"any_tags": ["\ud800"]}, "UTF-8"),
        ({"any_tags": [str(n) for n in range(51)]}, "51 tags"),
        ({"until": "tomorrow"}, "not a date"),
    ],
)
def test_filters_that_are_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        filters_of("message", **asked)  # type: ignore[arg-type]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InvalidInput, match="both, text, vector"):
        require_way("fulltext")


# Periods


def test_without_bounds_a_period_is_all_of_time() -> None:
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


def test_a_moment_without_a_zone_is_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert moment("2026-03-01T02:00+02:00") == moment(datetime(2026, 3, 1, 0, 0)) == START
    assert moment(datetime(2026, 3, 1, 2, tzinfo=east)) == START
    assert moment("2026-03-01") == START


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-03", "1.3.2026", 5.0])
def test_a_text_that_is_not_a_date_is_refused(text: Moment) -> None:
    with pytest.raises(InvalidInput, match="is not a date"):
        period(text, None)


def test_a_week_is_refused() -> None:
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


# Rankings


def places(ranking: Ranking, n: int) -> tuple[object, ...]:
    """Returns the rank and the score of a row by words, and those by vectors."""
    passage = Passage(id="p", text="", kind="archive", thread_id="t", seq=1, created_at=0.0)
    found = ranking.found(n, passage, by_words=True)
    return found.text_rank, found.text_score, found.vector_rank, found.vector_score


def test_one_ranking_stays_as_it_is() -> None:
    hits = [Hit(3, 2.5), Hit(1, 1.5)]
    by_text, by_vector = Ranking(hits, None), Ranking(None, hits)
    assert by_text.rows == by_vector.rows == [3, 1]
    assert places(by_text, 1) == (2, 1.5, None, None)
    assert places(by_vector, 1) == (None, None, 2, 1.5)
    assert by_text.scores == {3: 2.5, 1: 1.5}
    assert Ranking(None, None).rows == []


def test_what_both_find_comes_first() -> None:
    ranking = Ranking([Hit(1, 9.0), Hit(2, 8.0)], [Hit(3, 0.9), Hit(2, 0.8)])
    assert ranking.rows == [2, 3, 1]  # of equal ones the newer first
    assert ranking.scores[2] == pytest.approx(2 / 62)
    assert ranking.scores[1] == ranking.scores[3] == pytest.approx(1 / 61)
    assert places(ranking, 2) == (2, 8.0, 2, 0.8)
    assert places(ranking, 1) == (1, 9.0, None, None)


def test_without_hits_of_one_the_other_counts() -> None:
    assert Ranking([], [Hit(1, 0.5)]).scores == {1: pytest.approx(1 / 61)}
