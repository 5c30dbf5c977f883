"""One step: a response of the model and the tool calls it asks for.

Text is published as it arrives. Each finished item is recorded; each finished call starts its
tool at once, while the response goes on. The step is over when the response is complete and every
call has its output, whatever became of the response or of the tools.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, assert_never

from weft.decision import request_for
from weft.definition import AgentDefinition, Deps, Out
from weft.errors import ModelError, RateLimited, StreamIncomplete, ToolFailed
from weft.events import (
    MessageAdded,
    ProviderItemAdded,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    ResponseCompleted,
    Retrying,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
)
from weft.ids import new_id
from weft.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    ProviderItem,
    Reasoning,
)
from weft.models.retry import Backoff, Retry
from weft.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from weft.thread import Thread
from weft.tools.call import PreparedCall, execute, prepare
from weft.tools.context import RunContext


async def take_step(
    thread: Thread, run_id: str, definition: AgentDefinition[Deps, Out], deps: Deps
) -> None:
    """Takes the next step of the run.

    Raises what the model raised, or `ToolFailed` for a tool declared with `on_error="raise"`; in
    both cases every call is answered and the step is closed.
    """
    step = _Step(thread, run_id, definition, deps)
    await step.take()


async def close_step(thread: Thread, run_id: str, reason: str) -> None:
    """Closes the open step, if there is one, answering its open calls with `reason`."""
    step = thread.state.step
    if step is None:
        return
    for call in step.pending:
        fate = "its outcome is unknown" if call.call_id in step.started else "it did not run"
        await thread.record(_answer(run_id, call, f"{reason}: {fate}."))
    await thread.record(StepInterrupted(run_id=run_id, step=step.number, reason=reason))


def _answer(run_id: str, call: FunctionCall, text: str) -> ToolOutputRecorded:
    output = FunctionCallOutput(call.call_id, text, new_id("fco"), is_error=True)
    return ToolOutputRecorded(run_id=run_id, item=output, name=call.name)


class _Step(Generic[Deps, Out]):
    """The work of one step; it owns the tasks of its tools."""

    def __init__(
        self, thread: Thread, run_id: str, definition: AgentDefinition[Deps, Out], deps: Deps
    ) -> None:
        assert thread.state.run is not None
        self._thread = thread
        self._run_id = run_id
        self._definition = definition
        self._deps = deps
        self._number = thread.state.run.steps + 1
        self._slots = asyncio.Semaphore(definition.max_parallel_tools)
        self._waiting: list[FunctionCall] = []
        self._tool_failure: ToolFailed | None = None
        self._seen = False

    async def take(self) -> None:
        model = self._definition.model.name
        await self._record(StepStarted(run_id=self._run_id, step=self._number, model=model))
        failure = await self._respond_and_call()
        if failure is not None:
            await close_step(self._thread, self._run_id, "The response broke off")
            raise failure
        await self._record(StepCompleted(run_id=self._run_id, step=self._number))
        if self._tool_failure is not None:
            raise self._tool_failure

    async def _respond_and_call(self) -> Exception | None:
        """Streams the response and runs its calls; returns what broke the response."""
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._respond(tasks)
            except Exception as error:  # noqa: BLE001
                # Raised when the calls under way are answered: their effects are real.
                return error
            serial = [call for call in self._waiting if self._is_serial(call)]
            for call in self._waiting:
                if call not in serial:
                    tasks.create_task(self._call(call))
        for call in serial:
            await self._call(call)
        return None

    async def _respond(self, tasks: asyncio.TaskGroup) -> None:
        """Streams the response, repeating the request while nothing of it was seen."""
        definition = self._definition
        request = request_for(self._thread.state, definition, self._deps)
        backoff = Backoff(definition.retry)
        while True:
            self._seen = False
            try:
                return await self._stream(definition.model.stream(request), tasks)
            except ModelError as error:
                retry = backoff.after(error)
                if self._seen or retry is None:
                    raise
            await self._record(self._retry_event(retry))
            await asyncio.sleep(retry.delay)

    async def _stream(self, events: AsyncIterator[StreamEvent], tasks: asyncio.TaskGroup) -> None:
        publish = self._thread.publish
        try:
            async for event in events:
                self._seen = True
                if not isinstance(event, (ItemFinished, ResponseFinished)):
                    publish(event)
                elif isinstance(event, ItemFinished):
                    await self._item_finished(event, tasks)
                else:
                    await self._response_finished(event)
        finally:
            # Nearly all models are async generators, whose connections must not wait for the
            # garbage collector.
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        if self._thread.state.step is None or self._thread.state.step.finish_reason is None:
            raise StreamIncomplete("The model ended its stream without ResponseFinished.")

    async def _item_finished(self, event: ItemFinished, tasks: asyncio.TaskGroup) -> None:
        item, index, run_id = event.item, event.index, self._run_id
        match item:
            case Message():
                await self._record(
                    MessageAdded(run_id=run_id, item=item, origin="model", index=index)
                )
            case Reasoning():
                await self._record(ReasoningAdded(run_id=run_id, item=item, index=index))
            case ProviderItem():
                await self._record(ProviderItemAdded(run_id=run_id, item=item, index=index))
            case FunctionCall():
                await self._record(ToolCallRequested(run_id=run_id, item=item, index=index))
                if self._definition.early_tools and not self._is_serial(item):
                    tasks.create_task(self._call(item))
                else:
                    self._waiting.append(item)
            case FunctionCallOutput():
                raise ModelError("The model wrote the output of a tool, which only tools can do.")
            case _ as unreachable:
                assert_never(unreachable)

    async def _response_finished(self, event: ResponseFinished) -> None:
        await self._record(
            ResponseCompleted(
                run_id=self._run_id,
                response_id=event.response_id,
                finish_reason=event.finish_reason,
                usage=event.usage,
            )
        )

    async def _call(self, call: FunctionCall) -> None:
        prepared = prepare(self._definition.tools, call)
        async with self._slots:
            outcome = await execute(
                prepared,
                self._context(call),
                on_attempt=lambda attempt: self._record(
                    ToolStarted(
                        run_id=self._run_id, call_id=call.call_id, name=call.name, attempt=attempt
                    )
                ),
            )
        if isinstance(prepared, PreparedCall) and prepared.tool.on_error == "raise":
            self._keep_failure(call, outcome.error)
        await self._record(
            ToolOutputRecorded(
                run_id=self._run_id, item=outcome.output, name=call.name, seconds=outcome.seconds
            )
        )

    def _keep_failure(self, call: FunctionCall, error: Exception | None) -> None:
        if error is not None and self._tool_failure is None:
            self._tool_failure = ToolFailed(f"The tool {call.name} failed: {error}")
            self._tool_failure.__cause__ = error

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
        )

    def _is_serial(self, call: FunctionCall) -> bool:
        tool = self._definition.tools.get(call.name)
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

    async def _record(self, event: RecordedEvent) -> None:
        await self._thread.record(event)
