"""When a schedule is due: at a time, after a delay, or whenever a cron expression matches.

Cron expressions have the five fields of Debian's cron, and its behaviour when clocks are changed: a
time that is skipped comes right after the gap, a time that is repeated comes once; expressions with
a star in the minutes or hours follow the clock (https://manpages.debian.org/cron.8).
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from treadle.domain.arguments import require_text, shown
from treadle.errors import InvalidInput

MAX_CRON_CHARS = 200
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Times(Struct, frozen=True):
    """When a schedule is due first (Unix seconds), and the rule by which it is due again."""

    due_at: float
    cron: str = ""
    tz: str = ""


def times_of(
    now: float,
    *,
    at: datetime | None,
    after: float | timedelta | None,
    cron: str | None,
    tz: str | tzinfo,
) -> Times:
    """Returns when a schedule is due that is made at `now` (Unix seconds).

    Exactly one of `at`, `after` and `cron` is set; see `Thread.schedule`. Raises `InvalidInput`.
    """
    if sum(one is not None for one in (at, after, cron)) != 1:
        raise InvalidInput(
            "A schedule needs exactly one of at= (a datetime), after= (seconds) and cron= (an "
            "expression of five fields)."
        )
    if cron is not None:
        name = zone_name(tz)
        first = next_time(require_text("cron", cron), name, now)
        if first is None:
            raise InvalidInput(f"cron={shown(cron)} matches no time in the next 50 years.")
        return Times(first, " ".join(cron.split()), name)
    return Times(_moment(at) if at is not None else now + _delay(after))


def next_time(cron: str, tz: str, after: float) -> float | None:
    """Returns the first time after `after` (Unix seconds) at which `cron` matches in a time zone.

    None if there is none within 50 years. Raises `InvalidInput` for another expression or zone.
    """
    if len(cron) > MAX_CRON_CHARS or len(cron.split()) != 5:
        raise InvalidInput(
            f"cron={shown(cron)} is not a cron expression of five fields (minute, hour, day of "
            'month, month, day of week), such as "30 9 * * MON-FRI".'
        )
    zone = time_zone(tz)
    try:
        return next(CronSim(cron, datetime.fromtimestamp(after, zone))).timestamp()
    except StopIteration:
        return None
    except (CronSimError, ValueError, AssertionError, OverflowError, OSError) as error:
        raise InvalidInput(
            f"cron={shown(cron)} is not a cron expression: {error or 'it cannot be read'}."
        ) from error


def zone_name(tz: object) -> str:
    """Returns the name of a time zone; raises `InvalidInput` for one without a name."""
    if tz is UTC:
        return "UTC"
    name = tz.key if isinstance(tz, ZoneInfo) else tz
    if not isinstance(name, str) or not name:
        raise InvalidInput(
            f'tz={shown(tz)} is not a time zone; pass a name such as "Europe/Berlin", or a '
            "zoneinfo.ZoneInfo."
        )
    time_zone(name)
    return name


@lru_cache(maxsize=1024)
def time_zone(name: str) -> tzinfo:
    """Returns a time zone, whose file is read once; raises `InvalidInput` for an unknown name."""
    if name == "UTC":
        return UTC  # even where the system has no time zones
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(
            f"tz={shown(name)} is not a time zone of this system; pass a name of the IANA "
            'database, such as "Europe/Berlin", or install the package tzdata.'
        ) from error


def _moment(at: object) -> float:
    if not isinstance(at, datetime):
        raise InvalidInput(f"at must be a datetime, not {shown(at)}.")
    if at.utcoffset() is None:
        raise InvalidInput(
            f"at={at.isoformat()} has no time zone; pass an aware datetime, such as "
            'datetime(2030, 1, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")).'
        )
    try:
        return at.timestamp()
    except OverflowError as error:
        raise InvalidInput(f"at={at.isoformat()} is too far away.") from error


def _delay(after: object) -> float:
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds < _LATEST - datetime.now(UTC).timestamp()
    ):
        raise InvalidInput(f"after must be a timedelta, or seconds from 0 on, not {shown(after)}.")
    return float(seconds)
