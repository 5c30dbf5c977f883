"""The compactor of a thread: keeps its requests within the window of the model."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib import import_module
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.block_edits import change
from treadle.domain.blocks import BLOCK_CHARS, Block, CreateBlock, RewriteBlock
from treadle.domain.events import CompactionCause, ContextCompacted, MemoryUpdated
from treadle.domain.items import Item
from treadle.domain.state import ThreadState
from treadle.errors import BlockChanged, ContextOverflow, TreadleError
from treadle.logging import logger_of
from treadle.memory.compaction.budget import ContextBudget
from treadle.memory.compaction.cut import Cut
from treadle.memory.compaction.gauge import Gauge, Size
from treadle.memory.compaction.strategies import NoCompaction, Summarize
from treadle.memory.compaction.summary import Summary, summary_message, text_of
from treadle.memory.compaction.tokens import text_tokens
from treadle.models.base import ModelRequest
from treadle.ports import ThreadWriter

_LOGGER = logger_of("treadle.compaction")

Write = Callable[[ContextBudget, str, Sequence[Item]], Awaitable[Summary]]
"""Writes a summary of items and of the previous summary; see `summary_writer`."""

_ABOUT_SUMMARY = "What was said before, of which not all is shown any more. It is kept by itself."


class _Plan(Struct, frozen=True):
    """A chosen cut, with the state for which it was chosen, its cause and its start."""

    budget: ContextBudget
    cut: Cut
    state: ThreadState
    size: Size
    cause: CompactionCause
    began: float


class Compactor:
    """Keeps the requests of one thread within the budgets of its agents.

    Summaries are written in one background task at a time, which `close` cancels.

    - `wake`: is called when the task has ended.
    - `has_blocks`: False for a thread without blocks of its own, whose summaries are messages.
    """

    def __init__(
        self,
        thread: ThreadWriter,
        *,
        wake: Callable[[], None] | None = None,
        has_blocks: bool = True,
    ) -> None:
        self._thread = thread
        self._wake = wake
        self._has_blocks = has_blocks
        self._made: Gauge | None = None  # most threads have no window to keep within
        self._work: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def frame_tokens(self) -> int:
        """The estimated tokens of the last request without its items; 0 before a request."""
        return 0 if self._made is None else self._made.frame

    @property
    def _gauge(self) -> Gauge:
        if self._made is None:
            self._made = Gauge()
        return self._made

    @property
    def is_busy(self) -> bool:
        """Whether a summary is being written."""
        return self._work is not None

    async def fit(self, budget: ContextBudget, request: ModelRequest) -> None:
        """Shortens what the model reads, if the next request needs it.

        A request above the threshold starts a compaction in parallel to the step. A request above
        the limit waits for the compaction. Raises `ContextOverflow` for a request that can never
        fit, and the `ConfigurationError` of a failing tokenizer.
        """
        gauge = self._gauge
        gauge.look(self._thread.state, budget.count, request)
        size = gauge.size()
        if isinstance(budget.strategy, NoCompaction):
            if gauge.at_least(size.expected) > budget.limit:
                raise self._overflow(budget, size.expected)
        elif size.most > budget.limit:
            await self._make_room(budget)
        elif self._is_due(budget, size, budget.threshold):
            self._begin(budget, size, "before_step")
        gauge.send()

    async def overflowed(self, budget: ContextBudget) -> bool:
        """Shortens the request that the provider has just refused; returns whether it did."""
        if isinstance(budget.strategy, NoCompaction):
            return False
        gauge = self._gauge
        gauge.refused(budget.limit)
        await self._settled()
        gauge.look(self._thread.state, budget.count)
        size = gauge.size()
        if not gauge.reads_as_sent and size.most <= budget.limit // 2:
            return True  # a compaction in parallel to the request has made room
        try:
            limits = gauge.safe(budget.limit // 2), gauge.safe(budget.limit)
            cut = self._tightest(budget, budget.goal // 2, *limits)
        except ContextOverflow:
            return False  # the error of the provider already reports it
        if cut is not None:
            await self._compact(self._plan(budget, cut, size, "overflow"))
            gauge.look(self._thread.state, budget.count)
        return not gauge.reads_as_sent

    def after_run(self, budget: ContextBudget) -> None:
        """Starts a compaction after a run, while no caller waits; raises nothing.

        It starts slightly below the threshold, so that the next run does not begin with it.
        """
        if (
            isinstance(budget.strategy, NoCompaction)
            or self._made is None
            or not self._made.has_sent
        ):
            return
        try:
            self._gauge.look(self._thread.state, budget.count)
            size = self._gauge.size()
            if self._is_due(budget, size, budget.threshold * 7 // 8):
                self._begin(budget, size, "after_run")
        except TreadleError as error:
            _LOGGER.warning("%s was not compacted: %s", self._thread.id, error.message)

    def abandon(self) -> None:
        """Cancels the compaction in progress, and starts no other."""
        self._is_closed = True
        if self._work is not None:
            self._work.cancel()

    async def close(self) -> None:
        """Cancels the compaction in progress, and waits for its end."""
        self.abandon()
        if self._work is not None:
            await asyncio.wait([self._work])

    # Deciding

    def _is_due(self, budget: ContextBudget, size: Size, threshold: int) -> bool:
        if self._work is not None or self._is_closed:
            return False
        return size.expected > threshold or self._has_too_many(budget)

    def _has_too_many(self, budget: ContextBudget) -> bool:
        """Whether the model reads more messages than allowed."""
        most = budget.max_messages
        return most is not None and self._gauge.messages(self._thread.state.context.cut) > most

    def _begin(self, budget: ContextBudget, size: Size, cause: CompactionCause) -> None:
        """Starts a compaction in the background, if it makes the request shorter enough."""
        gauge, limit = self._gauge, budget.threshold
        if not self._has_too_many(budget):
            # A cut that saves little would be followed by the next one at once, again and again.
            limit = (budget.goal + limit) // 2
        aim = gauge.aim(budget, goal=budget.goal, limit=limit, keep=budget.keep)
        cut = gauge.cutter.choose(aim)
        if cut is None:
            return
        plan = self._plan(budget, cut, size, cause)
        if isinstance(budget.strategy, Summarize):
            self._start(self._summarize(plan))
        else:
            self._apply(plan, Summary())

    async def _make_room(self, budget: ContextBudget) -> None:
        """Compacts before the step continues."""
        gauge = self._gauge
        await self._settled()
        gauge.look(self._thread.state, budget.count)
        size = gauge.size()
        if size.most <= budget.limit:
            return
        cut = self._tightest(budget, budget.goal, gauge.safe(budget.limit), budget.limit)
        if cut is not None:
            await self._compact(self._plan(budget, cut, size, "before_step"))
            gauge.look(self._thread.state, budget.count)

    def _tightest(self, budget: ContextBudget, goal: int, limit: int, most: int) -> Cut | None:
        """Returns a cut that reaches `goal` or at least fits, or None if nothing can leave.

        The steps are: a cut that keeps the newest messages; a cut that does not; shortened outputs.
        - `limit`: the expected tokens that fit even if the estimate is too low.
        - `most`: the expected tokens that are accepted if `limit` cannot be reached.

        Raises `ContextOverflow` if even the latest cut is too long.
        """
        gauge = self._gauge
        aim = gauge.aim(budget, goal=goal, limit=limit, keep=budget.keep)
        cutter = gauge.cutter
        cut = cutter.choose(aim) or cutter.choose(replace(aim, keep=0))
        for longer in (limit, (limit + most) // 2, most):
            aim = gauge.aim(budget, goal=goal, limit=longer, keep=0)
            cut = cut or cutter.shorten(aim)
        now = self._thread.state.context
        if cut is not None and (cut.at, cut.shortened) != (now.cut, now.shortened):
            return cut
        cut = cutter.latest(gauge.frame + gauge.summary)
        expected = round(cut.tokens * gauge.scale)
        if gauge.at_least(expected) > budget.limit:
            raise self._overflow(budget, expected)
        # It may fit if the estimate is too high; the provider decides.
        return cut if cut.at > now.cut else None

    def _overflow(self, budget: ContextBudget, needed: int) -> ContextOverflow:
        frame = round(self._gauge.frame * self._gauge.scale)
        return ContextOverflow(
            f"The request needs about {needed:,} tokens, {frame:,} of them for instructions and "
            f"tools, and may have {budget.limit:,}: a window of {budget.window:,}, less what is "
            f"reserved for the response. {_advice(budget)}"
        )

    def _plan(self, budget: ContextBudget, cut: Cut, size: Size, cause: CompactionCause) -> _Plan:
        now = asyncio.get_running_loop().time()
        return _Plan(budget, cut, self._thread.state, size, cause, now)

    # Doing

    async def _compact(self, plan: _Plan) -> None:
        """Carries a plan out and waits for it; where no summary comes of it, without one."""
        if not isinstance(plan.budget.strategy, Summarize) or self._is_closed:
            self._apply(plan, Summary())
            return
        self._start(self._summarize(plan))
        await self._settled()
        # The task may have been cancelled; the step must have room in any case.
        if self._is_current(plan):
            self._apply(plan, Summary(problem="the summary was interrupted"))

    async def _settled(self) -> None:
        """Waits for the compaction in progress; cancelling the wait does not cancel it."""
        if self._work is not None:
            await asyncio.wait([self._work])

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._work = asyncio.create_task(work, name=f"treadle compaction {self._thread.id}")
        self._work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work = None
        if not work.cancelled() and (error := work.exception()) is not None:
            _LOGGER.warning("%s could not be compacted", self._thread.id, exc_info=error)
        if self._wake is not None and not self._is_closed:
            self._wake()

    async def _summarize(self, plan: _Plan) -> None:
        state = plan.state
        before = text_of(state.context.summary)
        block = state.memory.get(plan.budget.block)
        if block is not None and self._has_blocks:
            before = "\n\n".join(text for text in (before, block.value) if text)
        # Already imported by `budget_of`, and only for agents that need it.
        writer = import_module("treadle.memory.compaction.summary_writer")
        summarize = cast("Write", writer.summarize)
        summary = await summarize(plan.budget, before, _leaving(state, plan.cut))
        if self._is_current(plan):
            self._apply(plan, summary)

    def _is_current(self, plan: _Plan) -> bool:
        """Whether nothing has been compacted or replaced since the plan was made."""
        state, then = self._thread.state, plan.state
        return (
            state.edited == then.edited
            and state.context.cut == then.context.cut
            and (state.context.shortened == then.context.shortened)
        )

    def _apply(self, plan: _Plan, summary: Summary) -> None:
        """Records the compaction; the history may have grown since the plan was made."""
        thread, gauge, budget = self._thread, self._gauge, plan.budget
        gauge.look(thread.state, budget.count)
        state = thread.state
        run_id = plan.state.run.id if plan.state.run is not None else ""
        told, problem, more = state.context.summary, summary.problem, 0
        written: MemoryUpdated | None = None
        if summary.text:
            told = summary_message(summary.text)
            try:
                if budget.block and self._has_blocks:
                    _require_same(plan.state, state, budget.block)
                    written, cut_off = _written(state, run_id, budget.block, summary.text)
                    problem = "; ".join(text for text in (problem, cut_off) if text)
                    told, more = None, _growth(written)
            except (
                TreadleError
            ) as error:  # the block is full, changed or read-only: a message has the summary
                problem = "; ".join(text for text in (problem, error.message) if text)
        cut = gauge.cutter.cut(
            plan.cut.at,
            gauge.frame + gauge.message_tokens(told) + more,
            dict(plan.cut.shortened),
        )
        if written is not None:
            thread.record(written)
        thread.record(
            ContextCompacted(
                run_id=run_id,
                cut=cut.at,
                kept=cut.kept,
                shortened=cut.shortened,
                summary=told,
                strategy=_name(budget),
                cause=plan.cause,
                tokens_before=plan.size.expected,
                tokens_after=round(cut.tokens * gauge.scale),
                counted_by=plan.size.counted_by,
                left_out=len(_leaving(state, cut)),
                model=summary.model,
                fallback=problem,
                usage=summary.usage,
                cost=summary.cost,
                seconds=asyncio.get_running_loop().time() - plan.began,
            )
        )
        gauge.look(thread.state, budget.count)


def _leaving(state: ThreadState, cut: Cut) -> Sequence[Item]:
    """Returns the items that the model reads now and no longer reads after a cut."""
    context, kept = state.context, set(cut.kept)
    read = [*context.kept, *range(context.cut, cut.at)]
    return [state.history[index] for index in read if index not in kept]


def _require_same(then: ThreadState, now: ThreadState, label: str) -> None:
    """Raises `BlockChanged` if the block was edited while its new summary was written."""
    before, after = then.memory.get(label), now.memory.get(label)
    if (before and before.value) != (after and after.value):
        raise BlockChanged(
            f"The block {label!r} was changed while the summary was written; the change is kept."
        )


def _written(
    state: ThreadState, run_id: str, label: str, text: str
) -> tuple[MemoryUpdated | None, str]:
    """Returns the event that writes a summary into a block, and a problem if it was cut off."""
    block = state.memory.get(label)
    known = block or Block(label, "", _ABOUT_SUMMARY, BLOCK_CHARS)
    problem = ""
    if len(text) > known.limit:
        text = text[: known.limit]
        problem = f"the summary was longer than the block {label!r}, and its end was left out"
    edit = RewriteBlock(label, text) if block else CreateBlock(replace(known, value=text))
    event = change(state.memory, edit, "summary")
    return event and replace(event, run_id=run_id), problem


def _growth(written: MemoryUpdated | None) -> int:
    return 0 if written is None else text_tokens(written.added) - text_tokens(written.removed)


def _name(budget: ContextBudget) -> str:
    return "summarize" if isinstance(budget.strategy, Summarize) else "sliding_window"


def _advice(budget: ContextBudget) -> str:
    if isinstance(budget.strategy, NoCompaction):
        return "Give the agent SlidingWindow() or Summarize() as its context, or a larger window."
    return (
        "Nothing more can leave it: shorten the message, the instructions or what tools return, "
        "unpin messages, or use a model with a larger window."
    )
