"""Counts the tokens of a history, and finds the places where it may be cut.

A tally grows with its history; only new items are counted.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Literal

from treadle.domain.history import History
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)
from treadle.memory.compaction.tokens import Count, items_tokens

_Place = Literal["user", "system", "response", "output"]
"""The kind of an item, as far as it decides whether a turn or a step may begin after it."""


class Tally:
    """The sizes and the possible cuts of the first `len` items of a history that only grows.

    A history may be cut before a turn or before a step. It is never cut inside of a response or
    between a call and its output, because providers refuse such requests.

    - `count`: the tokenizer; None estimates.
    - `turns`: the places where turns begin: user messages that do not follow another one.
    - `steps`: the places where the steps of the last turn begin, except the first step.
    - `asked`: the place of the last user message, or None.
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
        self._last: _Place = "response"

    def __len__(self) -> int:
        return len(self._tokens) - 1

    def extend(self, history: History) -> None:
        """Adds the new items of the history; raises the `ConfigurationError` of the tokenizer."""
        known = len(self)
        if known == len(history):
            return
        new, count = history[known:], self.count
        sizes = items_tokens(new, count)
        self._read(new, known)
        for index in self._system[len(self._system_tokens) - 1 :]:
            self._system_tokens.append(self._system_tokens[-1] + sizes[index - known])
        self._tokens.extend(islice(accumulate(sizes, initial=self._tokens[-1]), 1, None))

    def tokens(self, start: int, end: int | None = None) -> int:
        """Returns the tokens of the items from `start` to before `end`, or to the last."""
        return self._tokens[len(self) if end is None else end] - self._tokens[start]

    def tokens_of(self, index: int) -> int:
        """Returns the tokens of one item."""
        return self._tokens[index + 1] - self._tokens[index]

    def messages(self, start: int) -> int:
        """Returns the number of messages, calls and outputs from `start` to the last."""
        thoughts = len(self._thoughts) - bisect_left(self._thoughts, start)
        return len(self) - start - thoughts

    def system(self, end: int) -> Sequence[int]:
        """Returns the places of the system and developer messages before `end`."""
        return self._system[: bisect_left(self._system, end)]

    def system_tokens(self, end: int) -> int:
        """Returns the tokens of the system and developer messages before `end`."""
        return self._system_tokens[bisect_left(self._system, end)]

    def _read(self, items: Sequence[Item], start: int) -> None:
        """Finds the turns and steps in items; the first item has the place `start`."""
        open_calls, steps, last = self._open, self.steps, self._last
        # The most frequent kinds first: a restart goes through thousands of items.
        for index, item in enumerate(items, start):
            if isinstance(item, FunctionCallOutput):
                open_calls.discard(item.call_id)
                last = "output"
                continue
            if isinstance(item, Message) and item.role != "assistant":
                last = self._asked(index, item, last)
                continue
            # A response begins after outputs, or after system messages that follow them.
            if last != "response" and last != "user" and not open_calls:
                steps.append(index)
            if isinstance(item, FunctionCall):
                open_calls.add(item.call_id)
            elif not isinstance(item, Message):
                self._thoughts.append(index)
            last = "response"
        self._last = last

    def _asked(self, index: int, item: Message, last: _Place) -> _Place:
        if item.role != "user":
            self._system.append(index)
            return "system"
        if last != "user":
            self.turns.append(index)
            self.steps.clear()
        self.asked = index
        return "user"
