"""What the loop does next: pure functions of the thread's state and the agent's definition."""

from collections.abc import Sequence
from typing import NamedTuple, assert_never

from msgspec.structs import replace

from treadle.domain.blocks import Block
from treadle.domain.events import HandedOff, LimitScope, RunCompleted, RunIncomplete, StopReason
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message, message
from treadle.domain.limits import NO_LIMITS
from treadle.domain.open_step import Step
from treadle.domain.rules import broken_rule, missing_tools
from treadle.domain.state import Run, ThreadState
from treadle.errors import OutputInvalid, OutputRefused, RuleBroken
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.memory.blocks.prompt import compile_blocks
from treadle.models.base import ModelRequest, NamedTool
from treadle.tools.toolset import Toolset


class Stop(NamedTuple):
    """Why a run ends; `scope` says of what a limit was."""

    reason: StopReason
    scope: LimitScope = "run"


def stop(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> Stop | None:
    """Returns why the run in progress ends before its next step, or None if it goes on."""
    run = _run_of(state)
    step = run.last_step
    if step is not None:
        ended = _end_of_step(step, definition)
        if ended is not None:
            return ended
    if run.finishing and run.steps:
        return Stop("finish_requested")
    reason = definition.limits.reached(run.spent)
    if reason is not None:
        return Stop(reason)
    if definition.thread_limits is not NO_LIMITS:
        reason = definition.thread_limits.reached(state.spent)
    return Stop(reason, "thread") if reason is not None else None


def may_answer(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> bool:
    """Whether the run in progress would go on if it were told something more."""
    asked = replace(state, run=replace(_run_of(state), last_step=None))
    return stop(asked, definition) is None


def _end_of_step(step: Step, definition: AgentDefinition[Deps, Out]) -> Stop | None:
    match step.finish_reason:
        case "length":
            return Stop("max_output_tokens", "response")
        case "content_filter":
            return Stop("content_filter", "response")
        case "stop" | "pause" | None:
            pass
        case _ as unreachable:
            assert_never(unreachable)
    if not step.calls:
        # A response that the end of a process cut off, or that the provider paused, is not the
        # model's last word.
        return None if step.finish_reason in {None, "pause"} else Stop("end_turn")
    return Stop("terminal_tool") if terminal_output(step, definition) else None


def refusal_of_call(
    state: ThreadState, definition: AgentDefinition[Deps, Out], call: FunctionCall
) -> str | None:
    """Returns why a call of the open step is not made, if a rule or a limit forbids it."""
    run, step = _run_of(state), state.step
    rules, limits = definition.rules, definition.limits
    calls = step.calls if step is not None else ()
    place = next((n for n, one in enumerate(calls) if one.call_id == call.call_id), len(calls))
    most = limits.max_tool_calls
    if most is not None and run.calls + place >= most:
        return f"The run may make {most} tool calls; {call.name} was not called."
    known = definition.tools.get(call.name)
    if known is not None and known.handoff:
        if limits.max_handoffs is not None and run.handoffs >= limits.max_handoffs:
            return "The conversation was handed over too often; answer yourself."
        if step is not None and any(_hands_off(definition, step, one) for one in calls[:place]):
            return "The conversation is handed over already."
    if definition.ends_run(call.name):
        missing = [name for name in missing_tools(rules, run) if name != call.name]
        if missing:
            names = " and ".join(missing)
            return f"Call {names} before {call.name}; {call.name} was not called."
    return broken_rule(rules, run, call, calls[:place])


def _hands_off(definition: AgentDefinition[Deps, Out], step: Step, call: FunctionCall) -> bool:
    """Whether a call hands the run over, or is about to: it did not fail."""
    known, output = definition.tools.get(call.name), step.output(call.call_id)
    return known is not None and bool(known.handoff) and not (output and output.is_error)


def handoff(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> HandedOff | None:
    """Returns the event by which the step just closed hands the run over, if it does."""
    run = _run_of(state)
    step = run.last_step
    if step is None or not definition.handoffs or terminal_output(step, definition):
        return None
    for call in step.calls:
        known, output = definition.tools.get(call.name), step.output(call.call_id)
        if known is not None and known.handoff and output is not None and not output.is_error:
            agent = definition.handoffs[known.handoff]
            return HandedOff(run_id=run.id, agent=agent.name, agent_hash=agent.hash)
    return None


def terminal_output(
    step: Step, definition: AgentDefinition[Deps, Out]
) -> FunctionCallOutput | None:
    """Returns the first output of a terminal tool that did not fail."""
    outputs = {output.call_id: output for output in step.outputs}
    for call in step.calls:
        if definition.ends_run(call.name) and not outputs[call.call_id].is_error:
            return outputs[call.call_id]
    return None


def end_of_run(state: ThreadState, stop: Stop) -> RunCompleted | RunIncomplete:
    """Returns the terminal event of a run that stops."""
    run, reason = _run_of(state), stop.reason
    if reason.startswith("max_") or reason == "content_filter":
        return RunIncomplete(run_id=run.id, stop_reason=reason, usage=run.usage, scope=stop.scope)
    return RunCompleted(run_id=run.id, stop_reason=reason, usage=run.usage)


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
    """Returns the message that asks the model for another answer, if its last must not stand.

    It must not while a required tool was not called, or when it is no valid structured output.
    Raises `OutputRefused` when the model refused, and `OutputInvalid` or `RuleBroken` after too
    many corrections.
    """
    run, output = _run_of(state), definition.output
    if missing := missing_tools(definition.rules, run):
        names = " and ".join(missing)
        if run.corrections >= definition.max_corrections:
            raise RuleBroken(f"The model answered without calling {names} first.")
        return message("user", f"Before you answer, call {names}.")
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
    state: ThreadState,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    tools: Toolset,
    blocks: Sequence[Block] = (),
) -> ModelRequest:
    """Returns the request of the next step, in which the model may call `tools`.

    The memory `blocks` follow the instructions, which change less often.
    """
    instructions = definition.instructions
    settings = definition.settings
    choice = settings.tool_choice
    # A choice that forces a call would force one in every step, and the run would never end.
    run, first = _run_of(state), definition.rules.first
    if run.steps - run.interrupted > 1 and (choice == "required" or isinstance(choice, NamedTool)):
        settings = replace(settings, tool_choice=None)
    if first is not None and not run.count_of(first).made:
        settings = replace(settings, tool_choice=NamedTool(first))
    choice = settings.tool_choice
    if isinstance(choice, NamedTool) and tools.get(choice.name) is None:
        settings = replace(settings, tool_choice=None)  # its source does not have it now
    if not tools.schemas:
        settings = replace(settings, tool_choice=None, parallel_tool_calls=None)
    text = instructions if isinstance(instructions, str) else instructions(deps)
    if blocks:
        text = f"{text}\n\n{compile_blocks(blocks)}" if text else compile_blocks(blocks)
    read = state.context.items(state.history)
    return ModelRequest(
        items=read,
        conversation=state.history if read is not state.history else (),
        instructions=text,
        tools=tools.schemas,
        output=definition.output.schema if definition.output is not None else None,
        settings=settings,
    )


def _run_of(state: ThreadState) -> Run:
    assert state.run is not None
    return state.run
