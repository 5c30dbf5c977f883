"""When schedules are due: delays, time zones, changes of the clock, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import InvalidInput
from treadle.schedules.times import Times, next_time, times_of

BERLIN = ZoneInfo("Europe/Berlin")


def times(now: float = 0.0, **fields: Any) -> Times:
    return times_of(now, **{"at": None, "after": None, "cron": None, "tz": "UTC", **fields})


def test_a_time_a_delay_and_a_rule() -> None:
    assert times(at=datetime(2030, 1, 1, 9, tzinfo=BERLIN)).due_at == 1893484800.0
    assert times(10.0, after=5) == Times(15.0)
    assert times(10.0, after=timedelta(minutes=1)) == Times(70.0)
    assert times(0.0, cron=" 30  9 * * * ", tz=BERLIN) == Times(
        9.5 * 3600 - 3600, "30 9 * * *", "Europe/Berlin"
    )


@pytest.mark.parametrize(
    ("day", "cron", "expected"),
    [
        # The clock jumps from 2:00 to 3:00: a time in the gap comes right behind it.
        ("2030-03-31", "30 2 * * *", ["2030-03-31T03:00+02:00", "2030-04-01T02:30+02:00"]),
        # It goes back from 3:00 to 2:00: a time that comes twice counts once.
        ("2030-10-27", "30 2 * * *", ["2030-10-27T02:30+02:00", "2030-10-28T02:30+01:00"]),
        ("2030-10-27", "0 9 * * MON-FRI", ["2030-10-28T09:00+01:00", "2030-10-29T09:00+01:00"]),
    ],
)
def test_when_clocks_are_changed(day: str, cron: str, expected: list[str]) -> None:
    at = datetime.fromisoformat(day).replace(tzinfo=BERLIN).timestamp()
    found = []
    for _ in expected:
        following = next_time(cron, "Europe/Berlin", at)
        assert following is not None
        found.append(datetime.fromtimestamp(following, BERLIN).isoformat(timespec="minutes"))
        at = following
    assert found == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"at": datetime.now(UTC), "after": 1},
        {"at": datetime(2030, 1, 1)},
        {"at": "2030-01-01"},
        {"after": -1},
        {"after": True},
        {"after": "60"},
        {"after": float("nan")},
        {"after": float("inf")},
        {"after": 1e300},
        {"cron": ""},
        {"cron": "* * * *"},
        {"cron": "* * * * * *"},
        {"cron": "@daily"},
        {"cron": "61 * * * *"},
        {"cron": "0 0 31 2 *"},
        {"cron": f"{','.join(['1'] * 200)} * * * *"},
        {"cron": "1/0 * * * *"},
        {"cron": "* * * * 1L/2"},
        {"cron": 5},
        {"cron": "* * */20 * 1L"},
        {"cron": "\ud800 * * * *"},
        {"cron": "0 9 * * *", "tz": "Mars/Olympus"},
        {"cron": "0 9 * * *", "tz": "../../etc/passwd"},
        {"cron": "0 9 * * *", "tz": "/etc/passwd"},
        {"cron": "0 9 * * *", "tz": "a\0b"},
        {"cron": "0 9 * * *", "tz": ""},
        {"cron": "0 9 * * *", "tz": None},
        {"cron": "0 9 * * *", "tz": timezone(timedelta(hours=1))},
    ],
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        times(**wrong)


@given(st.text("0123456789*/,-L#W MONJAN", max_size=30), st.floats(0, 4e9))
def test_any_text_is_a_rule_or_is_refused(cron: str, now: float) -> None:
    try:
        found = next_time(cron, "Europe/Berlin", now)
    except InvalidInput:
        return
    assert found is None or found > now
