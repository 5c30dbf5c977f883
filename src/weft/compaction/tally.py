"""A tally of a history: how many tokens it has, and where it may be cut.

It grows with the history, and costs only what is new.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from weft.compaction.tokens import Count, item_tokens
from weft.history import History
from weft.items import FunctionCall, FunctionCallOutput, Item, Message, ProviderItem, Reasoning


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
        self._messages = array("q", [0])
        self._system: list[int] = []
        self._system_tokens = array("q", [0])
        self._open: set[str] = set()
        self._last: Item | None = None

    def __len__(self) -> int:
        return len(self._tokens) - 1

    def extend(self, history: History) -> None:
        """Adds what the history has more; raises `ConfigurationError` of the tokenizer."""
        known = len(self)
        if known < len(history):
            for item in history[known:]:
                self._add(item)

    def tokens(self, start: int, end: int | None = None) -> int:
        """How many tokens the items from `start` to `end` (or to the last) are."""
        return self._tokens[len(self) if end is None else end] - self._tokens[start]

    def tokens_of(self, index: int) -> int:
        """How many tokens one item is."""
        return self._tokens[index + 1] - self._tokens[index]

    def messages(self, start: int) -> int:
        """How many messages, calls and outputs there are from `start` to the last."""
        return self._messages[-1] - self._messages[start]

    def system(self, end: int) -> Sequence[int]:
        """The places of the system and developer messages before `end`."""
        return self._system[: bisect_left(self._system, end)]

    def system_tokens(self, end: int) -> int:
        """How many tokens the system and developer messages before `end` are."""
        return self._system_tokens[bisect_left(self._system, end)]

    def _add(self, item: Item) -> None:
        index, last = len(self), self._last
        tokens = item_tokens(item, self.count)
        counts = 1
        match item:
            case Message(role="user"):
                if not (isinstance(last, Message) and last.role == "user"):
                    self.turns.append(index)
                    self.steps.clear()
                self.asked = index
            case Message(role="system" | "developer"):
                self._system.append(index)
                self._system_tokens.append(self._system_tokens[-1] + tokens)
            case FunctionCallOutput():
                self._open.discard(item.call_id)
            case Reasoning() | ProviderItem():
                counts = 0
                self._cut_before(index)
            case FunctionCall():
                self._cut_before(index)
                self._open.add(item.call_id)
            case _:  # what the model said
                self._cut_before(index)
        self._tokens.append(self._tokens[-1] + tokens)
        self._messages.append(self._messages[-1] + counts)
        self._last = item

    def _cut_before(self, index: int) -> None:
        """Notes where a response begins: after outputs, or what a program added to them."""
        last = self._last
        if self._open or not isinstance(last, Message | FunctionCallOutput):
            return
        if isinstance(last, FunctionCallOutput) or last.role in {"system", "developer"}:
            self.steps.append(index)
