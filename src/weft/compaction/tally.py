"""A tally of a history: how many tokens it has, and where it may be cut.

It grows with the history, and costs only what is new.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Literal

from weft.compaction.tokens import Count, item_tokens
from weft.history import History
from weft.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)


class Tally:
    """What is known of the first `len` items of a history that only grows.

    It may be cut before a turn or before a step, so never inside of a response, nor between a call
    and its output.

    - `turns`: where a turn begins: at a user message that follows no other.
    - `steps`: where a step of the last turn begins, but for its first.
    - `asked`: the place of the last user message, or None.

    `count` is the tokenizer, if there is one.
    """

    def __init__(self, count: Count | None = None) -> None:
        self.count = count
        self.turns: list[int] = []
        self.steps: list[int] = []
        self.asked: int | None = None
        self._tokens = array("q", [0])
        self._thoughts: list[int] = []
        self._system: list[int] = []
        self._system_tokens = array("q", [0])
        self._open: set[str] = set()
        self._last: Literal["user", "system", "response", "output", ""] = ""

    def __len__(self) -> int:
        return len(self._tokens) - 1

    def extend(self, history: History) -> None:
        """Adds what the history has more; raises `ConfigurationError` of the tokenizer."""
        known = len(self)
        if known == len(history):
            return
        new, count = history[known:], self.count
        sizes = [item_tokens(item, count) for item in new]
        for index, item in enumerate(new, known):
            self._add(index, item)
        for index in self._system[len(self._system_tokens) - 1 :]:
            self._system_tokens.append(self._system_tokens[-1] + sizes[index - known])
        self._tokens.extend(islice(accumulate(sizes, initial=self._tokens[-1]), 1, None))

    def tokens(self, start: int, end: int | None = None) -> int:
        """How many tokens the items from `start` to `end` (or to the last) are."""
        return self._tokens[len(self) if end is None else end] - self._tokens[start]

    def tokens_of(self, index: int) -> int:
        """How many tokens one item is."""
        return self._tokens[index + 1] - self._tokens[index]

    def messages(self, start: int) -> int:
        """How many messages, calls and outputs there are from `start` to the last."""
        thoughts = len(self._thoughts) - bisect_left(self._thoughts, start)
        return len(self) - start - thoughts

    def system(self, end: int) -> Sequence[int]:
        """The places of the system and developer messages before `end`."""
        return self._system[: bisect_left(self._system, end)]

    def system_tokens(self, end: int) -> int:
        """How many tokens the system and developer messages before `end` are."""
        return self._system_tokens[bisect_left(self._system, end)]

    def _add(self, index: int, item: Item) -> None:
        # By the kind of item, the usual ones first: thousands are gone through after a restart.
        last = self._last
        if isinstance(item, FunctionCallOutput):
            self._open.discard(item.call_id)
            self._last = "output"
        elif isinstance(item, Message) and item.role != "assistant":
            if item.role == "user":
                if last != "user":
                    self.turns.append(index)
                    self.steps.clear()
                self.asked = index
                self._last = "user"
            else:
                self._system.append(index)
                self._last = "system"
        else:
            # A response begins after outputs, or what a program added to them.
            if last in {"output", "system"} and not self._open:
                self.steps.append(index)
            if isinstance(item, FunctionCall):
                self._open.add(item.call_id)
            elif not isinstance(item, Message):
                self._thoughts.append(index)
            self._last = "response"
