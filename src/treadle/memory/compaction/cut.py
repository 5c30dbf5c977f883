"""Choosing where a history is cut: pure functions of its tally.

All sizes are in the tokens of the tally; what they are for the provider is known to who asks.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from treadle.domain.context import Context
from treadle.domain.history import History
from treadle.domain.items import FunctionCallOutput, Item, Message
from treadle.memory.compaction.tally import Tally
from treadle.memory.compaction.tokens import text_tokens

NOTE_TOKENS = 20
"""What tells the model that a text was shortened."""

LEAST_CHARS = 200
"""How much of an output is always read."""


class Aim(Struct, frozen=True):
    """What a cut is to reach.

    It shall leave at most `goal` tokens and `messages` messages, with at least `keep` messages, and
    must leave at most `limit` tokens. Of these, `frame` are not of the history: instructions,
    tools, the summary that is to come.
    """

    goal: int
    limit: int
    keep: int
    frame: int
    messages: int | None = None


class Cut(Struct, frozen=True):
    """What the model shall read: the `kept` items, and those from `at` on, some `shortened`.

    `tokens` is the size of the request, with its frame.
    """

    at: int
    kept: tuple[int, ...]
    shortened: tuple[tuple[int, int], ...]
    tokens: int


class Cutter:
    """Knows the sizes of all cuts of a history, which the model reads by `context` now.

    `first` is the place of the message that the run in progress began with, if there is one.
    """

    def __init__(
        self, tally: Tally, history: History, context: Context, *, first: int | None = None
    ) -> None:
        self._tally = tally
        self._history = history
        self._context = context
        self._first = first
        self._saved = {index: self._saving(index, most) for index, most in context.shortened}

    @property
    def read(self) -> int:
        """The size of what is read now, without a summary."""
        context, tally = self._context, self._tally
        kept = sum(tally.tokens_of(index) for index in context.kept)
        return kept + tally.tokens(context.cut) - sum(self._saved.values())

    def kept(self, at: int) -> tuple[int, ...]:
        """The items before `at` that are read all the same."""
        must = [index for index in self._must if index < at]
        return tuple(sorted({*self._tally.system(at), *must}))

    def size(self, at: int) -> int:
        """The size of what is read of the history when it is cut at `at`."""
        tally = self._tally
        size = tally.tokens(at) + tally.system_tokens(at)
        for index, tokens in self._must.items():
            if index < at:
                size += tokens
        for index, saved in self._saved.items():
            if index >= at or index in self._must:
                size -= saved
        return size

    def cut(self, at: int, frame: int, shortened: Mapping[int, int] | None = None) -> Cut:
        """Returns the cut at `at`; what is shortened already stays so."""
        kept = self.kept(at)
        less = {**dict(self._context.shortened), **(shortened or {})}
        less = {index: most for index, most in less.items() if index >= at or index in kept}
        size = self.size(at) + frame
        for index in less.keys() & (shortened or {}).keys():
            size += self._saved.get(index, 0) - self._saving(index, less[index])
        return Cut(at, kept, tuple(sorted(less.items())), size)

    def choose(self, aim: Aim) -> Cut | None:
        """Returns the first cut that reaches the goal, at the beginning of a turn if one does.

        Where `keep` forbids it, it is the last that leaves enough messages. A cut inside of the
        last turn is made only where none before it does. Returns None where none is left that
        stays within the limit, or all is left.
        """
        tally, frame, now = self._tally, aim.frame, self._context.cut

        def reaches(at: int) -> bool:
            few = aim.messages is None or tally.messages(at) <= aim.messages
            return few and self.size(at) + frame <= aim.goal

        def keeps_too_few(at: int) -> bool:
            return tally.messages(at) < aim.keep

        for places in (tally.turns, tally.steps):
            start = bisect_left(places, now + 1)
            most = bisect_left(places, True, start, key=keeps_too_few) - 1
            found = min(bisect_left(places, True, start, key=reaches), most)
            if found >= start and self.size(places[found]) + frame <= aim.limit:
                return self.cut(places[found], frame)
        return None

    def shorten(self, aim: Aim) -> Cut | None:
        """Returns the latest cut, with its longest outputs as short as the limit demands.

        Returns None where that is not enough.
        """
        at, frame, tally = self._latest, aim.frame, self._tally
        outputs = {
            index: tally.tokens_of(index)
            for index in range(at, len(tally))
            if _is_text_output(self._history[index])
        }
        sizes = sorted(outputs.values())
        others = self.size(at) + frame - sum(sizes)
        others += sum(saved for index, saved in self._saved.items() if index in outputs)
        most = _level(sizes, aim.limit - others)
        while most > NOTE_TOKENS:
            shortened = {
                index: self._chars(index, most - NOTE_TOKENS)
                for index, tokens in outputs.items()
                if tokens > most
            }
            cut = self.cut(at, frame, shortened)
            if cut.tokens <= aim.limit:
                return cut
            most = most * 3 // 4  # a text that is not of one kind
        return None

    def latest(self, frame: int) -> Cut:
        """Returns the cut that leaves the least."""
        return self.cut(self._latest, frame)

    @property
    def _latest(self) -> int:
        tally = self._tally
        return max([self._context.cut, *tally.turns[-1:], *tally.steps[-1:]])

    @cached_property
    def _must(self) -> Mapping[int, int]:
        """The messages that are always read, but for those of the system, and their sizes."""
        history, pinned = self._history, set(self._context.pinned)
        places = {index for index in (self._first, self._tally.asked) if index is not None}
        if pinned:
            places.update(
                index
                for index, item in enumerate(history)
                if isinstance(item, Message) and item.id in pinned
            )
        return {
            index: self._tally.tokens_of(index)
            for index in sorted(places)
            if isinstance(item := history[index], Message)
            and item.role not in {"system", "developer"}
        }

    def _saving(self, index: int, most: int) -> int:
        """How many tokens are saved where only `most` characters of an item are read."""
        item = self._history[index]
        if not isinstance(item, Message | FunctionCallOutput) or len(item.text) <= most:
            return 0
        left = text_tokens(item.text[:most], self._tally.count) + NOTE_TOKENS
        return max(0, self._tally.tokens_of(index) - left)

    def _chars(self, index: int, most: int) -> int:
        """How many characters of an output are at most `most` tokens."""
        item = self._history[index]
        assert isinstance(item, FunctionCallOutput)
        return max(LEAST_CHARS, len(item.text) * most // self._tally.tokens_of(index))


def _is_text_output(item: Item) -> bool:
    return isinstance(item, FunctionCallOutput) and isinstance(item.output, str)


def _level(sizes: Sequence[int], room: int) -> int:
    """Returns how long each may be, so that together they are at most `room`; `sizes` ascend."""
    left = len(sizes)
    for size in sizes:
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return 0
