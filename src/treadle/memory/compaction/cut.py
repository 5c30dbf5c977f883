"""Chooses where a history is cut; pure.

All sizes are in estimated tokens of the tally. The caller converts them to tokens of the provider.
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
"""The tokens of the note that a text was shortened."""

LEAST_CHARS = 200
"""How many characters of an output are read at least."""


class Aim(Struct, frozen=True):
    """The requirements for a cut.

    - `goal`: the tokens that should be left at most. `limit`: the tokens that must not be exceeded.
    - `keep`, `messages`: the least and the most messages that should be left.
    - `frame`: the tokens outside of the history, which count too: instructions, tools and the new
      summary.
    """

    goal: int
    limit: int
    keep: int
    frame: int
    messages: int | None = None


class Cut(Struct, frozen=True):
    """What the model reads of a history after a compaction.

    - `at`: the first item that is read. `kept`: items before it that are still read.
    - `shortened`: items of which only the first characters are read, with their number.
    - `tokens`: the size of the request, with its frame.
    """

    at: int
    kept: tuple[int, ...]
    shortened: tuple[tuple[int, int], ...]
    tokens: int


class Cutter:
    """Compares the cuts of a history.

    - `context`: what the model reads of the history now.
    - `first`: the place of the message that started the run in progress, or None.
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
        """The size of the items that are read now, without the summary."""
        context, tally = self._context, self._tally
        kept = sum(tally.tokens_of(index) for index in context.kept)
        return kept + tally.tokens(context.cut) - sum(self._saved.values())

    def kept(self, at: int) -> tuple[int, ...]:
        """Returns the items before a cut at `at` that are still read."""
        must = [index for index in self._must if index < at]
        return tuple(sorted({*self._tally.system(at), *must}))

    def size(self, at: int) -> int:
        """Returns the size of the items that are read after a cut at `at`."""
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
        """Returns the cut at `at`; items that are shortened already stay shortened."""
        kept = self.kept(at)
        less = {**dict(self._context.shortened), **(shortened or {})}
        less = {index: most for index, most in less.items() if index >= at or index in kept}
        size = self.size(at) + frame
        for index in less.keys() & (shortened or {}).keys():
            size += self._saved.get(index, 0) - self._saving(index, less[index])
        return Cut(at, kept, tuple(sorted(less.items())), size)

    def choose(self, aim: Aim) -> Cut | None:
        """Returns the earliest cut that reaches the goal, preferably at the start of a turn.

        If too few messages would be left, returns the latest cut that leaves `keep` messages. Cuts
        inside of the last turn come second. Returns None if every cut exceeds the limit or leaves
        everything.
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
        """Returns the latest cut, with its longest outputs shortened until the limit is met.

        Returns None if that is not enough.
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
            most = most * 3 // 4  # its beginning has more tokens per character than its average
        return None

    def latest(self, frame: int) -> Cut:
        """Returns the latest cut, which leaves the fewest items."""
        return self.cut(self._latest, frame)

    @property
    def _latest(self) -> int:
        tally = self._tally
        return max([self._context.cut, *tally.turns[-1:], *tally.steps[-1:]])

    @cached_property
    def _must(self) -> Mapping[int, int]:
        """The sizes of the messages that are always read, without system messages, by place."""
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
        """Returns the tokens saved by reading only `most` characters of an item."""
        item = self._history[index]
        if not isinstance(item, Message | FunctionCallOutput) or len(item.text) <= most:
            return 0
        left = text_tokens(item.text[:most], self._tally.count) + NOTE_TOKENS
        return max(0, self._tally.tokens_of(index) - left)

    def _chars(self, index: int, most: int) -> int:
        """Returns the characters of an output that have about `most` tokens."""
        item = self._history[index]
        assert isinstance(item, FunctionCallOutput)
        return max(LEAST_CHARS, len(item.text) * most // self._tally.tokens_of(index))


def _is_text_output(item: Item) -> bool:
    return isinstance(item, FunctionCallOutput) and isinstance(item.output, str)


def _level(sizes: Sequence[int], room: int) -> int:
    """Returns the limit for each of `sizes`, which ascend, so that their sum is at most `room`."""
    left = len(sizes)
    for size in sizes:
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return 0
