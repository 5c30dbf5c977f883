"""The tool calls of one step: which of them are made, when, and what their outputs are."""

import asyncio
from typing import Generic

from treadle.clock import now
from treadle.domain.events import (
    Awaited,
    RunRequiresAction,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
)
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item
from treadle.domain.open_step import Step
from treadle.errors import HookFailed, RunError, ToolFailed
from treadle.logging import enter_call
from treadle.loop.activation import Activation
from treadle.loop.call_rules import refusal_of_call
from treadle.loop.definition import Deps, Out, is_restricted
from treadle.loop.steering import SKIPPED, skipped_calls, skips
from treadle.loop.step_hooks import StepHooks
from treadle.streaming.demux import MAX_CALLS
from treadle.tools.call import PreparedCall, awaits_of, decided, execute, prepare, takes_context
from treadle.tools.callables import Pending
from treadle.tools.context import CallServices, RunContext
from treadle.tools.failure import message_of
from treadle.tools.toolset import Toolset


class StepCalls(Generic[Deps, Out]):
    """The calls of the open step, or of the one that is about to start; each is a task of `tasks`.

    `failure` is what the run fails with once all calls are answered: the first error of a tool
    with `on_error="raise"`, or of a hook.
    """

    def __init__(
        self,
        activation: Activation[Deps, Out],
        tools: Toolset,
        hooks: StepHooks[Deps, Out],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._activation = activation
        self._agent = activation.agent
        self._thread = activation.thread
        self._run_id = activation.run.id
        self._tools = tools
        self._hooks = hooks
        self._tasks = tasks
        self._slots: asyncio.Semaphore | None = (
            None  # made with the first call: most steps have none
        )
        # Calls whose task was created, and those of them that got a slot. As keys, because the
        # garbage collector visits an empty set and not an empty dictionary.
        self._begun: dict[str, None] = {}
        self._at_work: dict[str, None] = {}
        # How many calls arrived. Unknown in a step of an earlier process, so that `work_off`
        # never takes its short way there: calls of that process wait without a task here.
        self._requested = 0 if self._thread.state.step is None else -1
        self._running = 0
        self._deciding: dict[asyncio.Task[None], None] = {}
        self.failure: RunError | None = None

    def asks(self, item: Item) -> bool:
        """Whether a function of the program decides what a finished item needs from outside."""
        tool = self._tools.get(item.name) if isinstance(item, FunctionCall) else None
        return tool is not None and not tool.is_local

    def request(self, call: FunctionCall, index: int) -> None:
        """Records a call whose arguments are complete, and begins it if it may start early.

        A rule for approval may take its time: meanwhile the response streams on, and `decided`
        waits for all of them.
        """
        self._requested += 1
        awaits = awaits_of(self._tools, call, lambda: self._context(call))
        if isinstance(awaits, Pending):
            rule, task = awaits, self._tasks.create_task(self._decide(call, index, awaits))
            self._deciding[task] = None
            task.add_done_callback(self._deciding.pop)
            task.add_done_callback(lambda _: rule.close())  # it may never have begun
        else:
            self._record(call, index, awaits)

    async def decided(self) -> None:
        """Waits until every call that arrived is recorded."""
        while self._deciding:
            await asyncio.wait(self._deciding)

    def drop_undecided(self) -> None:
        """Leaves out calls of a response that broke off before it was known what they await."""
        for task in self._deciding:
            task.cancel()

    async def _decide(self, call: FunctionCall, index: int, rule: Pending[bool]) -> None:
        self._record(call, index, await decided(rule))

    def _record(self, call: FunctionCall, index: int, awaits: Awaited | None) -> None:
        tool = self._tools.of(call)
        if awaits is not None and self._refusal(call) is not None:
            awaits = None  # the refusal is its output: no one has to approve or answer it
        self._thread.record(
            ToolCallRequested(
                run_id=self._run_id,
                item=call,
                index=index,
                awaits=awaits,
                to_user=tool.to_user if tool is not None else "",
                parameters=tool.signature.plain
                if tool is not None and awaits == "approval" and not call.runs_at_provider
                else None,
            )
        )
        is_serial = tool is not None and tool.serial
        if self._agent.early_tools and awaits is None and not is_serial:
            self._begin(call)

    def answer_interrupted(self) -> None:
        """Answers the calls that an earlier process had started, unless they may run again."""
        step = self._open
        for call in step.pending:
            tool = self._tools.of(call)
            if call.call_id in step.started and not (tool is not None and tool.idempotent):
                text = "Interrupted: the process ended while the tool ran, its outcome is unknown."
                self._answer(call, text)

    def require_action(self) -> None:
        """Records which calls wait for a reply from outside."""
        awaited = self._open.awaited
        if not awaited or self._activation.run.status != "in_progress":
            return
        timeout = self._agent.action_timeout
        self._thread.record(
            RunRequiresAction(
                run_id=self._run_id,
                call_ids=tuple(call.call_id for call in awaited),
                expires_at=None if timeout is None else now() + timeout,
                seconds=self._activation.stopwatch.lap(),
            )
        )

    async def work_off(self) -> None:
        """Makes the calls, until none runs and none can begin.

        An approval or a message that arrives meanwhile counts at once.
        """
        if self._requested == len(self._begun):
            return  # the usual case: every call began early, and the task group waits for them
        while True:
            for call in skipped_calls(self._thread.state, self._at_work):
                self._skip(call)
            waiting = [call for call in self._open.ready if call.call_id not in self._begun]
            for call in waiting:
                if not self._is_serial(call):
                    self._begin(call)
            # A serial call runs alone: it begins when nothing else is at work.
            if not self._running:
                if not waiting:
                    return
                self._begin(waiting[0])
            await self._activation.signals.changed()

    def _begin(self, call: FunctionCall) -> None:
        self._begun[call.call_id] = None
        self._running += 1
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._agent.max_parallel_tools)
        self._tasks.create_task(self._call(call, self._slots))

    async def _call(self, call: FunctionCall, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                step = self._open
                if step.is_answered(call.call_id):
                    return  # skipped while it waited for a slot
                # While the response still streams, calls start in spite of a message that waits:
                # the model has not finished what it answers to the messages before.
                if step.finish_reason is not None and skips(
                    self._thread.state, call, self._at_work
                ):
                    self._skip(call)
                else:
                    await self._execute(call)
        finally:
            self._running -= 1
            self._activation.signals.notify()

    async def _execute(self, call: FunctionCall) -> None:
        enter_call(call.call_id)
        self._at_work[call.call_id] = None
        refusal = self._refusal(call)
        if refusal is not None:
            self._answer(call, refusal)
            return
        prepared = prepare(self._tools, call)
        try:
            prepared, arguments = await self._hooks.before_tool(self._tools, prepared)
        except HookFailed as error:
            self.failure = self.failure or error
            self._answer(call, "It did not run, because a hook failed.")
            return
        outcome = await execute(
            prepared,
            self._context(call) if takes_context(prepared) else None,
            on_attempt=lambda attempt: self._attempt(call, attempt, arguments),
        )
        if isinstance(prepared, PreparedCall) and prepared.tool.on_error == "raise":
            self._keep_failure(call, outcome.error)
        try:
            output = await self._hooks.after_tool(prepared, outcome.output)
        except HookFailed as error:
            # The tool has run, so that its own output must stay in the history.
            self.failure = self.failure or error
            output = outcome.output
        if not isinstance(output.output, str):
            output = await self._activation.services.files.keep(output)
        self._thread.record(
            ToolOutputRecorded(
                run_id=self._run_id, item=output, name=call.name, seconds=outcome.seconds
            )
        )

    async def _attempt(self, call: FunctionCall, attempt: int, arguments: str) -> None:
        """Records that the tool starts, and waits until a crash cannot lose it.

        Only then may the tool have an effect: a restart must know that it may have run.
        """
        self._thread.record(
            ToolStarted(
                run_id=self._run_id,
                call_id=call.call_id,
                name=call.name,
                attempt=attempt,
                arguments=arguments,
            )
        )
        await self._thread.durable()

    def _keep_failure(self, call: FunctionCall, error: Exception | None) -> None:
        if error is not None and self.failure is None:
            self.failure = ToolFailed(f"The tool {call.name} failed: {message_of(error)}")
            self.failure.__cause__ = error

    def _answer(self, call: FunctionCall, text: str, by: str = "") -> None:
        self._thread.record(unmade(self._run_id, call, text, by))

    def _skip(self, call: FunctionCall) -> None:
        steering = self._thread.state.steering
        self._answer(call, SKIPPED, steering[0].by if steering else "")

    def _refusal(self, call: FunctionCall) -> str | None:
        """Returns why a rule or a limit forbids a call; most agents have neither."""
        step = self._thread.state.step
        has_few_items = step is None or len(step.items) <= MAX_CALLS
        if not is_restricted(self._agent) and has_few_items:
            return None
        return refusal_of_call(self._thread.state, self._agent, call)

    def _context(self, call: FunctionCall) -> RunContext[Deps]:
        thread, services = self._thread, self._activation.services

        def report(message: str) -> None:
            thread.publish(ToolProgress(call.call_id, call.name, message))

        lent = CallServices(
            writer=thread,
            report=report,
            delegation=services.delegation,
            jobs=services.jobs,
            memory=services.memory,
            schedules=services.schedules,
        )
        return self._activation.run_context(
            call_id=call.call_id, tool_name=call.name, services=lent
        )

    def _is_serial(self, call: FunctionCall) -> bool:
        tool = self._tools.of(call)
        return tool is not None and tool.serial

    @property
    def _open(self) -> Step:
        step = self._thread.state.step
        assert step is not None
        return step


def unmade(run_id: str, call: FunctionCall, text: str, by: str = "") -> ToolOutputRecorded:
    """Builds the event that answers a call which was not made, or did not end, with `text`.

    `by` is the principal whose cancel or message was the reason.
    """
    output = FunctionCallOutput(call.call_id, text, new_id("fco"), is_error=True)
    return ToolOutputRecorded(run_id=run_id, item=output, name=call.name, by=by)
