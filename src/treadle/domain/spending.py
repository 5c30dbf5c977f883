"""What models cost over time, computed from events."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from treadle.domain.events import ContextCompacted, RecordedEvent, ResponseCompleted

SLOT = 900
"""Seconds that are counted together. Days of all time zones begin with one of these slots."""


class Spending(Struct, frozen=True):
    """Tokens (input and output) and their cost, in the currency of the prices."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(self.tokens + other.tokens, self.cost + other.cost)


NO_SPENDING: Mapping[int, Spending] = MappingProxyType({})


def slot_of(at: float) -> int:
    """Returns the number of the slot of a time (Unix seconds)."""
    return int(at // SLOT)


def spending_in(events: Iterable[RecordedEvent]) -> Mapping[int, Spending]:
    """Returns what the model was asked for in `events`, by slots.

    What agents used that worked for the thread is counted with the events of their own threads.
    """
    spending: dict[int, Spending] | None = None
    for event in events:
        if isinstance(event, ResponseCompleted | ContextCompacted):
            added = Spending(event.usage.total_tokens, event.cost)
            if added != Spending():
                slot, spending = slot_of(event.at), spending or {}
                spending[slot] = spending.get(slot, Spending()) + added
    return spending or NO_SPENDING
