"""What the loop does next: pure functions of the thread's state and the agent's definition."""

from typing import assert_never

from msgspec.structs import replace

from weft.definition import AgentDefinition, Deps, Limits, Out
from weft.errors import OutputInvalid, OutputRefused
from weft.events import RunCompleted, RunIncomplete, StopReason
from weft.items import FunctionCallOutput, Message, message
from weft.models.base import ModelRequest, NamedTool
from weft.open_step import Step
from weft.state import Run, ThreadState
from weft.tools.toolset import Toolset

_INCOMPLETE: frozenset[StopReason] = frozenset(
    {
        "max_steps",
        "max_tokens",
        "max_cost",
        "max_seconds",
        "max_output_tokens",
        "content_filter",
    }
)


def stop_reason(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> StopReason | None:
    """Returns why the run in progress ends before its next step, or None if it goes on."""
    run = _run_of(state)
    step = run.last_step
    if step is not None:
        reason = _end_of_step(step, definition)
        if reason is not None:
            return reason
    if run.finishing and run.steps:
        return "finish_requested"
    return _limit_reached(run, definition.limits)


def can_go_on(state: ThreadState) -> bool:
    """Whether a thread has something to do that needs nothing from outside."""
    run, step = state.active_run, state.step
    if run is None:
        return bool(state.queue)
    if run.status != "requires_action" or step is None or step.ready:
        return True
    # A message that steers skips what waits for approval; what is done elsewhere goes on.
    approvals = (step.awaits_of(call.call_id) == "approval" for call in step.awaited)
    return bool(state.steering) and any(approvals)


def _end_of_step(step: Step, definition: AgentDefinition[Deps, Out]) -> StopReason | None:
    match step.finish_reason:
        case "length":
            return "max_output_tokens"
        case "content_filter":
            return "content_filter"
        case "stop" | "pause" | None:
            pass
        case _ as unreachable:
            assert_never(unreachable)
    if not step.calls:
        # A response that the end of a process cut off, or that the provider paused, is not the
        # model's last word.
        return None if step.finish_reason in {None, "pause"} else "end_turn"
    return "terminal_tool" if terminal_output(step, definition) else None


def _limit_reached(run: Run, limits: Limits) -> StopReason | None:
    if run.steps - run.interrupted >= limits.max_steps:
        return "max_steps"
    if limits.max_tokens is not None and run.usage.total_tokens >= limits.max_tokens:
        return "max_tokens"
    if (
        limits.max_cost is not None
        and limits.price is not None
        and limits.price.cost(run.usage) >= limits.max_cost
    ):
        return "max_cost"
    return None


def terminal_output(
    step: Step, definition: AgentDefinition[Deps, Out]
) -> FunctionCallOutput | None:
    """Returns the first output of a terminal tool that did not fail."""
    outputs = {output.call_id: output for output in step.outputs}
    for call in step.calls:
        tool = definition.tools.get(call.name)
        if tool is not None and tool.terminal and not outputs[call.call_id].is_error:
            return outputs[call.call_id]
    return None


def end_of_run(state: ThreadState, reason: StopReason) -> RunCompleted | RunIncomplete:
    """Returns the terminal event of a run that ends for `reason`."""
    run = _run_of(state)
    kind = RunIncomplete if reason in _INCOMPLETE else RunCompleted
    return kind(run_id=run.id, stop_reason=reason, usage=run.usage)


def final_text(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> str:
    """Returns what the run has to say: the last message, or the output of a terminal tool."""
    step = _run_of(state).last_step
    if step is None:
        return ""
    output = terminal_output(step, definition)
    return output.text if output is not None else step_text(step)


def step_text(step: Step) -> str:
    """Returns the text of all messages of a step, joined."""
    return "".join(item.text for item in step.ordered if isinstance(item, Message))


def refusal_of(step: Step) -> str:
    """Returns the refusal of a step, or nothing."""
    return "".join(item.refusal for item in step.ordered if isinstance(item, Message))


def correction(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> Message | None:
    """Returns the message that asks the model to correct its structured output, if it must be.

    Raises `OutputRefused` when the model refused, and `OutputInvalid` after too many corrections.
    """
    run, output = _run_of(state), definition.output
    if output is None or run.last_step is None:
        return None
    if refusal := refusal_of(run.last_step):
        raise OutputRefused(f"The model refused to answer: {refusal}")
    try:
        output.parse(step_text(run.last_step))
    except ValueError as error:
        problem = output.explain(error)
    else:
        return None
    if run.corrections >= definition.max_corrections:
        raise OutputInvalid(
            f"The output is not a valid {output.schema.name} after {run.corrections} corrections: "
            f"{problem}"
        )
    return message(
        "user", f"Your answer is not valid: {problem}\nAnswer again with corrected JSON only."
    )


def request_for(
    state: ThreadState, definition: AgentDefinition[Deps, Out], deps: Deps, tools: Toolset
) -> ModelRequest:
    """Returns the request of the next step, in which the model may call `tools`."""
    instructions = definition.instructions
    settings = definition.settings
    choice = settings.tool_choice
    # A choice that forces a call would force one in every step, and the run would never end.
    run = _run_of(state)
    if run.steps - run.interrupted > 1 and (choice == "required" or isinstance(choice, NamedTool)):
        settings = replace(settings, tool_choice=None)
    if isinstance(choice, NamedTool) and tools.get(choice.name) is None:
        settings = replace(settings, tool_choice=None)  # its source does not have it now
    if not tools.schemas:
        settings = replace(settings, tool_choice=None, parallel_tool_calls=None)
    return ModelRequest(
        items=state.history,
        instructions=instructions if isinstance(instructions, str) else instructions(deps),
        tools=tools.schemas,
        output=definition.output.schema if definition.output is not None else None,
        settings=settings,
    )


def _run_of(state: ThreadState) -> Run:
    assert state.run is not None
    return state.run
