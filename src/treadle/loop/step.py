"""One step: a response of the model and the tool calls it asks for.

Text is published as it arrives. Each finished item is recorded; each finished call starts its
tool at once, while the response goes on. The step is over when the response is complete and every
call has its output, whatever became of the response or of the tools. A step that an earlier
process left open is worked off in the same way, but for its response.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Generic, assert_never

from treadle.domain.blocks import Block
from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
    RunRequiresAction,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
)
from treadle.domain.ids import new_id
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.domain.open_step import Step
from treadle.errors import (
    ContextOverflow,
    HookFailed,
    ModelError,
    QuotaExceeded,
    RateLimited,
    RunError,
    StreamIncomplete,
    ToolFailed,
)
from treadle.logging import enter_call
from treadle.loop.control import RunControl
from treadle.loop.decision import refusal_of_call, request_for
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.hook_context import HookContext
from treadle.loop.tool_hooks import ToolHooks
from treadle.models.base import ModelRequest
from treadle.models.retry import Backoff, Retry
from treadle.ports import ThreadWriter
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.streaming.streamed_fields import StreamedFields
from treadle.tools.call import PreparedCall, awaits_of, execute, prepare
from treadle.tools.context import RunContext


async def take_step(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> None:
    """Takes the next step of the active run, or goes on with the one that is open.

    The step stays open when all that is left to do must come from outside. Raises what the model
    raised, `ToolFailed` for a tool declared with `on_error="raise"`, and `HookFailed`; in all cases
    every call is answered and the step is closed.
    """
    await _Step(thread, definition, deps, control).take()


def close_step(thread: ThreadWriter, reason: str, seconds: float = 0.0) -> None:
    """Closes the open step, if there is one, answering its open calls with `reason`.

    `seconds` is the time it took so far.
    """
    step, run = thread.state.step, thread.state.run
    if step is None or run is None:
        return
    for call in step.pending:
        fate = "its outcome is unknown" if call.call_id in step.started else "it did not run"
        thread.record(_answer(run.id, call, f"{reason}: {fate}."))
    thread.record(StepInterrupted(run_id=run.id, step=step.number, reason=reason, seconds=seconds))


def _answer(run_id: str, call: FunctionCall, text: str) -> ToolOutputRecorded:
    output = FunctionCallOutput(call.call_id, text, new_id("fco"), is_error=True)
    return ToolOutputRecorded(run_id=run_id, item=output, name=call.name)


class _Step(Generic[Deps, Out]):
    """The work of one step; it owns the tasks of its tools."""

    def __init__(
        self,
        thread: ThreadWriter,
        definition: AgentDefinition[Deps, Out],
        deps: Deps,
        control: RunControl,
    ) -> None:
        assert thread.state.run is not None
        self._thread = thread
        self._run_id = thread.state.run.id
        self._definition = definition
        self._tools = definition.tools
        self._deps = deps
        self._control = control
        self._slots = asyncio.Semaphore(definition.max_parallel_tools)
        self._begun: set[str] = set()
        self._at_work: set[str] = set()
        # Unknown where the step goes on with what an earlier process left.
        self._requested = 0 if thread.state.step is None else -1
        self._running = 0
        self._failure: RunError | None = None
        self._seen = False
        self._context_of_hooks: HookContext[Deps] | None = None
        control.skip()  # what came before is no time of the step

    async def take(self) -> None:
        if self._definition.sources:
            self._tools = await self._definition.sources.joined_to(self._tools)
        failure = await self._respond_and_call()
        if failure is not None:
            close_step(self._thread, "The response broke off", self._control.lap())
            raise failure
        step = self._open
        if step.pending:
            return
        self._record(
            StepInterrupted(
                run_id=self._run_id,
                step=step.number,
                reason="The process ended",
                seconds=self._control.lap(),
            )
            if step.finish_reason is None
            else StepCompleted(run_id=self._run_id, step=step.number, seconds=self._control.lap())
        )
        if self._failure is not None:
            raise self._failure

    async def _respond_and_call(self) -> Exception | None:
        """Streams the response and runs its calls; returns what broke the response."""
        async with asyncio.TaskGroup() as tasks:
            if self._thread.state.step is not None:
                self._answer_interrupted()
            else:
                self._start()
                try:
                    await self._respond(tasks)
                except Exception as error:  # noqa: BLE001
                    # Raised when the calls under way are answered: their effects are real.
                    return error
            self._require_action()
            await self._work_off(tasks)
        return None

    def _start(self) -> None:
        assert self._thread.state.run is not None
        number, model = self._thread.state.run.steps + 1, self._definition.model.name
        self._record(StepStarted(run_id=self._run_id, step=number, model=model))

    def _answer_interrupted(self) -> None:
        """Answers the calls that a process ran when it ended, unless they may run again."""
        step = self._open
        for call in step.pending:
            tool = self._tools.get(call.name)
            if call.call_id in step.started and not (tool is not None and tool.idempotent):
                text = "Interrupted: the process ended while the tool ran, its outcome is unknown."
                self._record(_answer(self._run_id, call, text))

    def _require_action(self) -> None:
        """Says which calls wait for someone outside."""
        run, awaited = self._thread.state.run, self._open.awaited
        if not awaited or run is None or run.status != "in_progress":
            return
        patience = self._definition.action_timeout
        self._record(
            RunRequiresAction(
                run_id=self._run_id,
                call_ids=tuple(call.call_id for call in awaited),
                expires_at=None if patience is None else time.time() + patience,
                seconds=self._control.lap(),
            )
        )

    async def _work_off(self, tasks: asyncio.TaskGroup) -> None:
        """Makes the calls, until none runs and none can be begun.

        What comes from outside meanwhile, an approval or a message that steers, counts at once.
        """
        if self._requested == len(self._begun):
            return  # the usual case: all there is to do is to wait for those that run
        while True:
            if self._thread.state.steering:
                self._skip_calls()
            waiting = [call for call in self._open.ready if call.call_id not in self._begun]
            for call in waiting:
                if not self._is_serial(call):
                    self._begin(call, tasks)
            if not self._running:
                if not waiting:
                    return
                self._begin(waiting[0], tasks)
            await self._control.change()

    def _skip_calls(self) -> None:
        """Answers the calls that did not start: the user has said something new."""
        step = self._open
        for call in step.pending:
            id = call.call_id
            # One that is at work may still be in its hooks, and answers for itself.
            begun = id in step.started or id in self._at_work
            if not begun and step.awaits_of(id) != "output":
                self._skip(call)

    def _skip(self, call: FunctionCall) -> None:
        self._record(_answer(self._run_id, call, "Skipped: the user sent a new message."))

    def _begin(self, call: FunctionCall, tasks: asyncio.TaskGroup) -> None:
        self._begun.add(call.call_id)
        self._running += 1
        tasks.create_task(self._call(call))

    @property
    def _open(self) -> Step:
        step = self._thread.state.step
        assert step is not None
        return step

    async def _respond(self, tasks: asyncio.TaskGroup) -> None:
        """Streams the response, repeating the request while nothing of it was seen."""
        definition = self._definition
        request, was_refused = await self._request(), False
        backoff = Backoff(definition.retry)
        while True:
            self._seen = False
            try:
                return await self._stream(definition.model.stream(request), tasks)
            except ModelError as error:
                is_long = isinstance(error, ContextOverflow) and not (self._seen or was_refused)
                if is_long and await self._became_shorter():
                    request, was_refused = await self._request(), True
                    continue
                retry = backoff.after(error)
                if self._seen or retry is None:
                    self._record_last(error)
                    raise
            self._record(self._retry_event(retry))
            await asyncio.sleep(retry.delay)

    async def _request(self) -> ModelRequest:
        """Returns the request of the step, once it fits into the window of the model."""
        thread, definition, compactor = self._thread, self._definition, self._control.compactor
        blocks = await self._blocks()
        request = request_for(thread.state, definition, self._deps, self._tools, blocks)
        if definition.budget is not None and compactor is not None:
            read = thread.state.context
            await compactor.fit(definition.budget, request)
            if thread.state.context is not read:
                blocks = await self._blocks()  # where the summary may live
                request = request_for(thread.state, definition, self._deps, self._tools, blocks)
        for hook in definition.hooks.at("before_model"):
            answer = hook(self._hook_context(), request)
            if answer is not None:
                answer = await hook.answer(answer)
            if isinstance(answer, ModelRequest):
                request = answer
            elif answer is not None:
                raise HookFailed(f"The hook {hook.name} returned no ModelRequest, nor None.")
        return request

    async def _became_shorter(self) -> bool:
        """Whether there is less to read now, after the provider refused the request as too long."""
        budget, compactor = self._definition.budget, self._control.compactor
        return budget is not None and compactor is not None and await compactor.overflowed(budget)

    def _frame_tokens(self) -> int:
        """The estimate of what is no item of the request; 0 where the agent estimates nothing."""
        budget, compactor = self._definition.budget, self._control.compactor
        return compactor.frame_tokens if budget is not None and compactor is not None else 0

    async def _blocks(self) -> Sequence[Block]:
        """Returns the memory blocks as they are now."""
        memory = self._control.memory
        return await memory.blocks() if memory is not None else self._thread.state.memory.blocks

    async def _stream(self, events: AsyncIterator[StreamEvent], tasks: asyncio.TaskGroup) -> None:
        publish = self._thread.publish
        fields = self._streamed_fields()
        try:
            async for event in events:
                self._seen = True
                if not isinstance(event, (ItemFinished, ResponseFinished)):
                    publish(event)
                    if fields is not None:
                        for growth in fields.feed(event):
                            publish(growth)
                elif isinstance(event, ItemFinished):
                    self._item_finished(event, tasks)
                else:
                    self._response_finished(event)
        finally:
            # Nearly all models are async generators, whose connections must not wait for the
            # garbage collector.
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        if self._open.finish_reason is None:
            raise StreamIncomplete("The model ended its stream without ResponseFinished.")

    def _streamed_fields(self) -> StreamedFields | None:
        """Returns what streams the fields of one response; None where none is streamed."""
        tools, output = self._tools.streamed, self._definition.stream_fields
        return StreamedFields(tools.get, output) if tools or output else None

    def _item_finished(self, event: ItemFinished, tasks: asyncio.TaskGroup) -> None:
        item, index, run_id = event.item, event.index, self._run_id
        match item:
            case Message():
                self._record(MessageAdded(run_id=run_id, item=item, origin="model", index=index))
            case Reasoning():
                self._record(ReasoningAdded(run_id=run_id, item=item, index=index))
            case ProviderItem():
                self._record(ProviderItemAdded(run_id=run_id, item=item, index=index))
            case FunctionCall():
                self._requested += 1
                awaits = awaits_of(self._tools, item)
                tool = self._tools.get(item.name)
                to_user = tool.to_user if tool is not None else ""
                if awaits is not None and self._refusal(item) is not None:
                    awaits = None  # it is answered without anyone
                self._record(
                    ToolCallRequested(
                        run_id=run_id, item=item, index=index, awaits=awaits, to_user=to_user
                    )
                )
                if self._definition.early_tools and awaits is None and not self._is_serial(item):
                    self._begin(item, tasks)
            case FunctionCallOutput():
                raise ModelError("The model wrote the output of a tool, which only tools can do.")
            case _ as unreachable:
                assert_never(unreachable)

    def _response_finished(self, event: ResponseFinished) -> None:
        self._record(
            ResponseCompleted(
                run_id=self._run_id,
                response_id=event.response_id,
                finish_reason=event.finish_reason,
                usage=event.usage,
                cost=self._definition.cost_of(event.usage),
                frame_tokens=self._frame_tokens(),
            )
        )

    async def _call(self, call: FunctionCall) -> None:
        try:
            async with self._slots:
                step = self._open
                if step.is_answered(call.call_id):
                    return  # skipped while it waited for a slot
                is_new = call.call_id not in step.started  # here, or in an earlier process
                if is_new and self._thread.state.steering and step.finish_reason is not None:
                    self._skip(call)
                else:
                    await self._execute(call)
        finally:
            self._running -= 1
            self._control.notify()

    async def _execute(self, call: FunctionCall) -> None:
        enter_call(call.call_id)
        self._at_work.add(call.call_id)
        refusal = self._refusal(call)
        if refusal is not None:
            self._record(_answer(self._run_id, call, refusal))
            return
        prepared = prepare(self._tools, call)
        hooks = ToolHooks(self._definition.hooks, self._hook_context)
        try:
            prepared, arguments = await hooks.before(self._tools, prepared)
        except HookFailed as error:
            self._failure = self._failure or error
            self._record(_answer(self._run_id, call, "It did not run, because a hook failed."))
            return
        outcome = await execute(
            prepared,
            self._context(call),
            on_attempt=lambda attempt: self._attempt(call, attempt, arguments),
        )
        if isinstance(prepared, PreparedCall) and prepared.tool.on_error == "raise":
            self._keep_failure(call, outcome.error)
        try:
            output = await hooks.after(prepared, outcome.output)
        except HookFailed as error:
            self._failure = self._failure or error
            output = outcome.output
        self._record(
            ToolOutputRecorded(
                run_id=self._run_id, item=output, name=call.name, seconds=outcome.seconds
            )
        )

    def _refusal(self, call: FunctionCall) -> str | None:
        """Why a rule or a limit forbids a call; the usual agent has none."""
        if not self._definition.is_restricted:
            return None
        return refusal_of_call(self._thread.state, self._definition, call)

    async def _attempt(self, call: FunctionCall, attempt: int, arguments: str) -> None:
        """Makes it known, beyond a crash, that the tool may have run from now on."""
        self._record(
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
        if error is not None and self._failure is None:
            self._failure = ToolFailed(f"The tool {call.name} failed: {error}")
            self._failure.__cause__ = error

    def _hook_context(self) -> HookContext[Deps]:
        if self._context_of_hooks is None:
            self._context_of_hooks = HookContext(
                self._thread,
                self._definition.name,
                self._deps,
                self._control.delegation,
                self._control.jobs,
            )
        return self._context_of_hooks

    def _context(self, call: FunctionCall) -> RunContext[Deps]:
        thread = self._thread

        def report(message: str) -> None:
            thread.publish(ToolProgress(call.call_id, call.name, message))

        return RunContext(
            deps=self._deps,
            thread_id=thread.id,
            run_id=self._run_id,
            call_id=call.call_id,
            tool_name=call.name,
            emit=report,
            delegation=self._control.delegation,
            run_jobs=self._control.jobs,
            run_memory=self._control.memory,
        )

    def _is_serial(self, call: FunctionCall) -> bool:
        tool = self._tools.get(call.name)
        return tool is not None and tool.serial

    def _retry_event(self, retry: Retry) -> RateLimitHit | Retrying:
        error = retry.error
        if isinstance(error, RateLimited):
            return RateLimitHit(
                run_id=self._run_id,
                delay=retry.delay,
                retries_remaining=retry.retries_remaining,
                message=error.message,
            )
        return Retrying(
            run_id=self._run_id,
            code=error.code,
            delay=retry.delay,
            retries_remaining=retry.retries_remaining,
            message=error.message,
        )

    def _record_last(self, error: ModelError) -> None:
        """Records why no other request is made, where that has a name of its own."""
        if isinstance(error, QuotaExceeded):
            self._record(QuotaHit(run_id=self._run_id, message=error.message))
        elif error.retryable and error.attempts > 1:
            self._record(
                RetriesExhausted(
                    run_id=self._run_id,
                    code=error.code,
                    attempts=error.attempts,
                    message=error.message,
                )
            )

    def _record(self, event: RecordedEvent) -> None:
        self._thread.record(event)
