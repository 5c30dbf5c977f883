"""A gauge: how long the next request of a thread is.

It adds the estimates of the items up, and corrects them by what the provider counted last: of that
request the size is known, and only what came since is estimated.
"""

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.context import Context
from treadle.domain.events import CountedBy
from treadle.domain.items import Message
from treadle.domain.state import ThreadState
from treadle.memory.compaction.budget import ContextBudget
from treadle.memory.compaction.cut import Aim, Cutter
from treadle.memory.compaction.tally import Tally
from treadle.memory.compaction.tokens import Count, frame_tokens, item_tokens
from treadle.models.base import ModelRequest

MARGIN = 1.3
"""How much longer than estimated a text may be."""

TOKENIZER_MARGIN = 1.1
"""The same where it was counted by a tokenizer, which knows nothing of what surrounds texts."""

OPTIMISM = 0.75
"""How much shorter a text may be than its estimate, where the provider has not counted any."""

_PRIOR = 2_000
"""Tokens by which a short request that the provider counted is trusted less."""

_LEAST_SCALE, _MOST_SCALE = 0.25, 8.0


class Size(Struct, frozen=True):
    """How long the next request is: as `expected`, and at most, as far as one can tell."""

    expected: int
    most: int
    counted_by: CountedBy


class _Sent(Struct, frozen=True):
    """A request as it was sent: how long the history was, what of it was read, its estimate."""

    items: int
    context: Context
    tokens: int


class Gauge:
    """Measures the requests of one thread; `look` tells it of the state before it is asked."""

    def __init__(self) -> None:
        self.cutter: Cutter
        self.frame = 0
        self._tally = Tally()
        self._edited = -1
        self._state = ThreadState()
        self._framed: tuple[ModelRequest, int] | None = None
        self._sent: _Sent | None = None
        self._scale: float | None = None
        self._least_scale = 0.0

    @property
    def has_sent(self) -> bool:
        """Whether a request was made here."""
        return self._sent is not None

    @property
    def reads_as_sent(self) -> bool:
        """Whether of the same history the same would be read as in the request made last."""
        return self._sent is not None and _reads_alike(self._sent.context, self._state.context)

    @property
    def scale(self) -> float:
        """How many tokens of the provider are one of the estimate."""
        return max(self._least_scale, 1.0 if self._scale is None else self._scale)

    @property
    def estimated(self) -> int:
        """The estimate of the next request."""
        return self.frame + self.cutter.read + self.summary

    @property
    def summary(self) -> int:
        """The estimate of the summary that is read now."""
        return self.message_tokens(self._state.context.summary)

    def message_tokens(self, message: Message | None) -> int:
        """The estimate of a message, if there is one."""
        return 0 if message is None else item_tokens(message, self._tally.count)

    def messages(self, at: int) -> int:
        """How many messages, calls and outputs there are from place `at` on."""
        return self._tally.messages(at)

    def look(
        self, state: ThreadState, count: Count | None, request: ModelRequest | None = None
    ) -> None:
        """Takes the state in, and the request that is to be made next, without its items.

        Without a request, the one before is taken. Raises `ConfigurationError` of the tokenizer.
        """
        if state.edited != self._edited or count is not self._tally.count:
            self._tally, self._edited = Tally(count), state.edited
            self._framed = self._sent = self._scale = None
            self._least_scale = 0.0
        self._tally.extend(state.history)
        if request is not None:
            self.frame = self._frame_of(request, count)
        self._state = state
        first = _first_of(state)
        self.cutter = Cutter(self._tally, state.history, state.context, first=first)

    def size(self) -> Size:
        """Returns how long the next request is."""
        context, estimated = self._state.context, self.estimated
        margin = MARGIN if self._tally.count is None else TOKENIZER_MARGIN
        measured, sent = context.measured_tokens, self._known(context, estimated)
        if sent is not None:
            scale = (measured + _PRIOR) / (sent.tokens + _PRIOR)
            self._scale = min(_MOST_SCALE, max(_LEAST_SCALE, scale))
            self._least_scale = 0.0
            if _reads_alike(sent.context, context):
                more = (estimated - sent.tokens) * self.scale
                most = more * margin if more > 0 else more
                return Size(round(measured + more), round(measured + most), "usage")
        tokens = estimated * self.scale
        by: CountedBy = "estimate" if self._tally.count is None else "tokenizer"
        return Size(round(tokens), round(tokens * margin), by)

    def at_least(self, expected: int) -> float:
        """Returns how long a request is at least that is expected to be so long.

        What follows from a refusal is left out: nobody knows how short it would have to be.
        """
        if self._scale is not None:
            return expected * self._scale / self.scale
        return expected / self.scale * (OPTIMISM if self._tally.count is None else 1.0)

    def aim(self, budget: ContextBudget, *, goal: int, limit: int, keep: int) -> Aim:
        """Returns what a cut is to reach, in estimated tokens; `limit` of what is expected."""
        scale = self.scale
        # A summary may be half as long again as it shall be.
        summary = self.summary if not budget.summary else round(budget.summary * 1.5 / scale)
        return Aim(
            goal=round(goal / scale),
            limit=round(limit / scale),
            keep=keep,
            frame=self.frame + summary,
            messages=budget.messages,
        )

    def safe(self, limit: int) -> int:
        """Returns what may be expected of a request so that it surely is within `limit`."""
        return round(limit / (MARGIN if self._tally.count is None else TOKENIZER_MARGIN))

    def send(self) -> None:
        """Takes note that the request is made."""
        state = self._state
        self._sent = _Sent(len(state.history), state.context, self.estimated)

    def refused(self, limit: int) -> None:
        """Takes note that the request made last was longer, whatever it was taken for.

        That holds until the provider counts one.
        """
        sent = self.estimated if self._sent is None else self._sent.tokens
        self._least_scale = min(_MOST_SCALE, max(self.scale, limit / max(1, sent)))

    def _known(self, context: Context, estimated: int) -> _Sent | None:
        """The request that the provider counted last, if that is known."""
        items = context.measured_items
        if not context.measured_tokens:
            return None
        if self._sent is None:  # an earlier process made it, and the same items are read
            if not context.measured_frame:
                return None
            since = self._tally.tokens(max(items, context.cut))
            return _Sent(items, context, estimated - since - self.frame + context.measured_frame)
        return self._sent if self._sent.items == items else None

    def _frame_of(self, request: ModelRequest, count: Count | None) -> int:
        """The estimate of what is no item; it seldom changes from one request to the next."""
        if self._framed is not None:
            last, tokens = self._framed
            same = request.tools is last.tools and request.output is last.output
            if same and request.instructions == last.instructions:
                return tokens
        tokens = frame_tokens(request, count)
        self._framed = (replace(request, items=()), tokens)
        return tokens


def _first_of(state: ThreadState) -> int | None:
    """The place of the user's message that the run in progress began with, if there is one."""
    run = state.active_run
    if run is None or not run.first_item:
        return None
    item = state.history[run.first_item - 1]
    return run.first_item - 1 if isinstance(item, Message) and item.role == "user" else None


def _reads_alike(one: Context, other: Context) -> bool:
    return (one.cut, one.kept, one.shortened, one.summary) == (
        other.cut,
        other.kept,
        other.shortened,
        other.summary,
    )
