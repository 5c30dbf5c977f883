"""Jobs of a module in which all annotations are strings."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import ClassVar

from treadle.jobs.job import Job


@dataclass(frozen=True)
class Page:
    """Data within data."""

    url: str
    number: int


@dataclass
class Written(Job[str], restartable=True):
    """Has fields whose types this module knows."""

    limit: ClassVar[int] = 3

    page: Page
    day: datetime.date
    more: list[Page] = field(default_factory=lambda: [Page("b", 2)])

    async def task(self) -> str:
        """Returns where the page is."""
        return self.page.url


@dataclass
class Inherits(Written):
    """Adds to the fields."""

    next: Page | None = Page("c", 3)
