"""One step: a response of the model, and the tool calls in it.

Text is published as it arrives. Each finished item is recorded; each finished call starts its
tool at once, while the response still streams. The step is over when the response is complete and
every call has its output, even if the response broke off or tools failed. A step that an earlier
process left open is completed in the same way, without its response.
"""

import asyncio

from treadle.domain.events import RecordedEvent, StepCompleted, StepInterrupted, StepStarted
from treadle.errors import RunInterrupted
from treadle.loop.activation import Activation
from treadle.loop.calls import StepCalls, unmade
from treadle.loop.definition import Deps, Out, output_tool_of
from treadle.loop.response import stream_response
from treadle.loop.step_hooks import StepHooks
from treadle.models.retry import Retry
from treadle.ports import ThreadWriter
from treadle.tools.failure import as_exception, reraise_interrupt


async def take_step(activation: Activation[Deps, Out]) -> None:
    """Takes the next step of the active run, or continues the one that is open.

    The step stays open if all that is left to do must come from outside. A response that broke off
    may be asked for again, in the next step (`Agent.on_interruption`). Raises what the model
    raised, `RunInterrupted` for a response that is not asked for again, `ToolFailed` for a tool
    declared with `on_error="raise"`, and `HookFailed`; every call that began is answered then, and
    only those that wait for a reply from outside may be open.
    """
    thread, agent = activation.thread, activation.agent
    activation.stopwatch.skip()  # hooks, and what else came before, are not time of the step
    tools = agent.tools
    if agent.sources:
        tools = await agent.sources.joined_to(tools, activation.run_context())
    output_tool = output_tool_of(agent)
    if output_tool is not None:
        tools = tools.with_output(output_tool)
    hooks = StepHooks(activation)
    broken: Exception | None = None
    retry: Retry | None = None
    task = asyncio.current_task()
    async with asyncio.TaskGroup() as tasks:
        calls = StepCalls(activation, tools, hooks, tasks)
        if thread.state.step is not None:
            calls.answer_interrupted()
        else:
            run = activation.run
            thread.record(StepStarted(run_id=run.id, step=run.steps + 1, model=agent.model.name))
            try:
                retry = await stream_response(activation, tools, hooks, calls)
            except BaseException as error:  # noqa: BLE001 - whatever fails, calls are answered
                reraise_interrupt(error, task)
                # Raised after the group has waited for the calls at work: their effects are real,
                # so that their outputs belong in the history.
                broken = as_exception(error)
        if broken is None and retry is None:
            calls.require_action()
            await calls.work_off()
        else:
            calls.drop_undecided()
    if broken is not None:
        close_step(thread, "The response broke off", activation.stopwatch.lap())
        raise broken
    if retry is not None:
        close_step(thread, "The response broke off", activation.stopwatch.lap())
        await asyncio.sleep(retry.delay)
        return
    step = thread.state.step
    assert step is not None
    if step.pending:
        if calls.failure is not None:
            # What the open calls wait for cannot change how the run ends, and only this process
            # knows the failure.
            raise calls.failure
        return
    run_id, seconds = activation.run.id, activation.stopwatch.lap()
    closed: RecordedEvent = StepCompleted(run_id=run_id, step=step.number, seconds=seconds)
    if step.finish_reason is None:
        reason = "The process ended"
        closed = StepInterrupted(run_id=run_id, step=step.number, reason=reason, seconds=seconds)
    thread.record(closed)
    if step.finish_reason is None and not activation.repeats_interrupted:
        raise RunInterrupted("The process ended within a response, which is not repeated.")
    if calls.failure is not None:
        raise calls.failure


def close_step(thread: ThreadWriter, reason: str, seconds: float = 0.0, by: str = "") -> None:
    """Closes the open step, if there is one; answers its open calls with `reason`.

    `seconds` is how long it took so far, `by` the principal that caused it.
    """
    step, run = thread.state.step, thread.state.run
    if step is None or run is None:
        return
    for call in step.pending:
        fate = "its outcome is unknown" if call.call_id in step.started else "it did not run"
        thread.record(unmade(run.id, call, f"{reason}: {fate}.", by))
    thread.record(StepInterrupted(run_id=run.id, step=step.number, reason=reason, seconds=seconds))
