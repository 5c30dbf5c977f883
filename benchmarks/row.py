"""A row: one figure of every party, and the targets that treadle's has to reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A limit that `value` has to stay within; `says` names it in the table."""

    says: str
    value: float
    limit: float

    @property
    def reached(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` says how treadle stands to the other parties."""

    metric: str
    unit: str
    figures: Mapping[str, float]
    ratio: str = ""
    targets: tuple[Target, ...] = field(default=())
    failure: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether all targets are reached; None where there is none."""
        if self.failure:
            return False
        if not self.targets:
            return None
        return all(target.reached for target in self.targets)


def ratio(figures: Mapping[str, float], *others: str) -> str:
    """Returns treadle's figure as a multiple of each other party's."""
    known = [name for name in others if figures.get(name)]
    return ", ".join(f"{figures['treadle'] / figures[name]:.2f} x {name}" for name in known)
