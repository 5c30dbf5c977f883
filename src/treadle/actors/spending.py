"""Limits of what an owner may spend in a period, and the check before each request."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from treadle.clock import now
from treadle.domain.arguments import require_choice, require_list, require_type
from treadle.domain.spending import Spending
from treadle.errors import ConfigurationError, HookFailed, SpendingLimitReached
from treadle.journal.base import Journal
from treadle.schedules.times import time_zone

Period = Literal["day", "month"]


def period_at(at: float, period: Period, tz: str) -> tuple[datetime, datetime]:
    """Returns the begin and the end of the day or month of a time (Unix seconds) in a time zone.

    Raises `InvalidInput` for another period and a time zone that is not known.
    """
    require_choice("period", period, Period)
    zone = time_zone(tz)
    today = datetime.fromtimestamp(at, zone)
    begin = datetime(today.year, today.month, today.day if period == "day" else 1)
    # A day later is tomorrow, 31 days later is in the next month.
    later = begin + timedelta(days=1 if period == "day" else 31)
    end = later if period == "day" else later.replace(day=1)
    return begin.replace(tzinfo=zone), end.replace(tzinfo=zone)


class SpendingLimit(Struct, frozen=True, kw_only=True):
    """How much one owner may spend in a day or a month.

    - `max_tokens`: input and output tokens together. `max_cost`: in the currency of the prices
      (`Limits.price`, `treadle.models.PRICES`); models without a price cost nothing. At least one
      of them.
    - `period`: `"day"` or `"month"` of the calendar, in the time zone `tz` (its IANA name).
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    period: Period = "month"
    tz: str = "UTC"

    def __post_init__(self) -> None:
        period_at(0, self.period, self.tz)
        given = [value for value in (self.max_tokens, self.max_cost) if value is not None]
        if not given or not all(_is_amount(value) for value in given):
            raise ConfigurationError(
                "A SpendingLimit needs max_tokens or max_cost, as a number from 0; None is none."
            )

    def is_reached(self, spent: Spending) -> bool:
        """Whether nothing is left."""
        by_tokens = self.max_tokens is not None and spent.tokens >= self.max_tokens
        return by_tokens or (self.max_cost is not None and spent.cost >= self.max_cost)


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


LimitsOfOwner = Callable[[str], Iterable[SpendingLimit] | Awaitable[Iterable[SpendingLimit]]]
SpendingLimits = Iterable[SpendingLimit] | LimitsOfOwner
"""Limits of every owner, or a function of the owner that returns its limits."""


class SpendingGuard:
    """Refuses requests for owners that have reached a limit; `limits` as in `treadle.open`."""

    def __init__(self, journal: Journal, limits: SpendingLimits) -> None:
        self._journal = journal
        self._function = limits if callable(limits) else None
        self._limits = () if callable(limits) else _checked(limits)

    @property
    def is_needed(self) -> bool:
        """Whether there may be limits."""
        return self._function is not None or bool(self._limits)

    async def require(self, owner: str) -> None:
        """Raises `SpendingLimitReached` if the owner has reached one of its limits.

        Raises `HookFailed` and `ConfigurationError` for what the function of the program does.
        """
        limits = self._limits
        if self._function is not None:
            try:
                made = self._function(owner)
                limits = await made if inspect.isawaitable(made) else made
            except Exception as error:
                raise HookFailed(f"The function for spending raised {error!r}.") from error
            limits = _checked(limits)
        for limit in limits:
            begin, end = period_at(now(), limit.period, limit.tz)
            spent = await self._journal.spending(
                owner, since=begin.timestamp(), until=end.timestamp()
            )
            if limit.is_reached(spent):
                raise _reached(limit, spent, end)


def _checked(limits: object) -> Sequence[SpendingLimit]:
    example = "spending=[SpendingLimit(max_cost=5, period='day')]"
    checked: list[SpendingLimit] = []
    for limit in require_list("spending", limits, example):
        require_type("An entry of spending", limit, SpendingLimit, example)
        if isinstance(limit, SpendingLimit):
            checked.append(limit)
    return checked


def _reached(limit: SpendingLimit, spent: Spending, end: datetime) -> SpendingLimitReached:
    most = [f"{limit.max_tokens} tokens"] if limit.max_tokens is not None else []
    if limit.max_cost is not None:
        most.append(f"a cost of {limit.max_cost:g}")
    return SpendingLimitReached(
        f"The owner has used {spent.tokens} tokens at a cost of {spent.cost:g} this "
        f"{limit.period}, and the limit is {' and '.join(most)}. It is reset at {end.isoformat()}"
    )
