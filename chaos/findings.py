"""What was counted and what was found."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Findings:
    """How much was looked at, and every finding as a sentence that names the thread."""

    counts: Counter[str] = field(default_factory=Counter[str])
    losses: list[str] = field(default_factory=list[str])
    duplicates: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.losses or self.duplicates or self.wrong)
