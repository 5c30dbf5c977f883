"""Measures how long the next request of a thread is.

Estimates are corrected by the last count of the provider: the size of that request is known, and
only the items since then are estimated.
"""

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.context import Context
from treadle.domain.events import CountedBy
from treadle.domain.items import Message
from treadle.domain.state import ThreadState, message_place
from treadle.memory.compaction.budget import ContextBudget
from treadle.memory.compaction.cut import Aim, Cutter
from treadle.memory.compaction.tally import Tally
from treadle.memory.compaction.tokens import Count, frame_tokens, item_tokens
from treadle.models.base import ModelRequest

MARGIN = 1.3
"""The factor by which a text may be longer than its estimate."""

TOKENIZER_MARGIN = 1.1
"""The same for a tokenizer, which does not count what providers add around texts."""

OPTIMISM = 0.75
"""The factor by which a text may be shorter than its estimate, before any provider count."""

_PRIOR = 2_000
"""Tokens added to both sides of the correction, so that it trusts counts of short requests less."""

_LEAST_SCALE, _MOST_SCALE = 0.25, 8.0


class Size(Struct, frozen=True):
    """The length of the next request in tokens: as expected, and at most."""

    expected: int
    most: int
    counted_by: CountedBy


class _Sent(Struct, frozen=True):
    """A request that was sent: the items of the history, the context, and its estimate."""

    items: int
    context: Context
    tokens: int


class Gauge:
    """Measures the requests of one thread, after `look` has read its state."""

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
        """Whether this process has sent a request of the thread."""
        return self._sent is not None

    @property
    def reads_as_sent(self) -> bool:
        """Whether the next request reads the history in the same way as the last one."""
        return self._sent is not None and _reads_alike(self._sent.context, self._state.context)

    @property
    def scale(self) -> float:
        """The tokens of the provider for each estimated token."""
        return max(self._least_scale, 1.0 if self._scale is None else self._scale)

    @property
    def estimated(self) -> int:
        """The estimate of the next request."""
        return self.frame + self.cutter.read + self.summary

    @property
    def summary(self) -> int:
        """The estimate of the current summary."""
        return self.message_tokens(self._state.context.summary)

    def message_tokens(self, message: Message | None) -> int:
        """Returns the estimate of a message; 0 for None."""
        return 0 if message is None else item_tokens(message, self._tally.count)

    def messages(self, at: int) -> int:
        """Returns the number of messages, calls and outputs from place `at` on."""
        return self._tally.messages(at)

    def look(
        self, state: ThreadState, count: Count | None, request: ModelRequest | None = None
    ) -> None:
        """Reads the state of the thread, and the next request except for its items.

        Without a request, the previous one counts. Raises the `ConfigurationError` of a failing
        tokenizer.
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
        """Returns the length of the next request."""
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
        """Returns the least length of a request with this expected length.

        Ignores refusals: they show that a request was too long, but not by how much.
        """
        if self._scale is not None:
            return expected * self._scale / self.scale
        return expected / self.scale * (OPTIMISM if self._tally.count is None else 1.0)

    def aim(self, budget: ContextBudget, *, goal: int, limit: int, keep: int) -> Aim:
        """Returns the requirements for a cut; converts provider tokens to estimated tokens."""
        scale = self.scale
        # A summary may be half as long again as requested; see `summary_writer`.
        summary = self.summary if not budget.summary else round(budget.summary * 1.5 / scale)
        return Aim(
            goal=round(goal / scale),
            limit=round(limit / scale),
            keep=keep,
            frame=self.frame + summary,
            messages=budget.messages,
        )

    def safe(self, limit: int) -> int:
        """Returns the expected length at which a request fits into `limit` even with the margin."""
        return round(limit / (MARGIN if self._tally.count is None else TOKENIZER_MARGIN))

    def send(self) -> None:
        """Records that the request is sent now."""
        state = self._state
        self._sent = _Sent(len(state.history), state.context, self.estimated)

    def refused(self, limit: int) -> None:
        """Records that the last request was longer than `limit`, contrary to the estimate.

        Estimates are scaled up until the provider counts a request.
        """
        sent = self.estimated if self._sent is None else self._sent.tokens
        self._least_scale = min(_MOST_SCALE, max(self.scale, limit / max(1, sent)))

    def _known(self, context: Context, estimated: int) -> _Sent | None:
        """Returns the request that the provider counted last, if it is known."""
        items = context.measured_items
        if not context.measured_tokens:
            return None
        if self._sent is None:  # an earlier process sent it, and it read the same items
            if not context.measured_frame:
                return None
            since = self._tally.tokens(max(items, context.cut))
            return _Sent(items, context, estimated - since - self.frame + context.measured_frame)
        return self._sent if self._sent.items == items else None

    def _frame_of(self, request: ModelRequest, count: Count | None) -> int:
        """Returns the estimate of a request without its items, which seldom changes."""
        if self._framed is not None:
            last, tokens = self._framed
            same = request.tools is last.tools and request.output is last.output
            if same and request.instructions == last.instructions:
                return tokens
        tokens = frame_tokens(request, count)
        self._framed = (replace(request, items=()), tokens)
        return tokens


def _first_of(state: ThreadState) -> int | None:
    """Returns the place of the user message that started the run in progress, or None."""
    run = state.active_run
    place = None if run is None else message_place(run, state.history)
    if place is None:
        return None
    item = state.history[place]
    return place if isinstance(item, Message) and item.role == "user" else None


def _reads_alike(one: Context, other: Context) -> bool:
    return (one.cut, one.kept, one.shortened, one.summary) == (
        other.cut,
        other.kept,
        other.shortened,
        other.summary,
    )
