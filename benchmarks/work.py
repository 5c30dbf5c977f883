"""Work: what a metric does inside a worker."""

from collections.abc import Awaitable, Callable, Mapping

from benchmarks.party import Party

Options = Mapping[str, int]
Figures = dict[str, float]
Work = Callable[[Party, Options], Awaitable[Figures]]
