"""Why a run ends, and what it has to say then: pure functions of the state and the agent."""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import LimitScope, RunCompleted, RunIncomplete, ValidatedOutput
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.domain.limits import NO_LIMITS
from treadle.domain.open_step import Step
from treadle.domain.state import Run, ThreadState
from treadle.domain.stop_reason import StopReason
from treadle.loop.definition import AgentDefinition, Deps, Out, ends_run, output_tool_of
from treadle.tools.output_type import OUTPUT_TOOL


class End(Struct, frozen=True):
    """The run ends; `scope` is what a limit was of, `output` what a validator changed."""

    reason: StopReason
    scope: LimitScope = "run"
    output: ValidatedOutput | None = None


class Answer(Struct, frozen=True):
    """The answer of the model: a text, or the arguments of the call that gave the output."""

    text: str
    is_call: bool = False


LAST_WORD = End("end_turn")
"""The model has given its answer."""


def find_end(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> End | None:
    """Returns why the run in progress ends before its next step, or None if it continues."""
    run = run_of(state)
    step = run.last_step
    if step is not None:
        end = _end_after(step, agent)
        if end is not None:
            return end
    if run.finishing and run.steps:
        return End("finish_requested")
    spent = run.spent
    if output_tool_of(agent) is not None:  # its calls are not counted
        used = spent.tool_calls - run.count_of(OUTPUT_TOOL).made
        spent = replace(spent, tool_calls=used)
    reason = agent.limits.reached(spent)
    if reason is not None:
        return End(reason)
    if agent.thread_limits is not NO_LIMITS:
        reason = agent.thread_limits.reached(state.spent)
    return End(reason, "thread") if reason is not None else None


def may_answer(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> bool:
    """Returns whether the run in progress would continue after another message."""
    asked = replace(state, run=replace(run_of(state), last_step=None))
    return find_end(asked, agent) is None


def _end_after(step: Step, agent: AgentDefinition[Deps, Out]) -> End | None:
    match step.finish_reason:
        case "length":
            return End("max_output_tokens", "response")
        case "content_filter":
            return End("content_filter", "response")
        case "stop" | "pause" | None:
            pass
        case _ as unreachable:
            assert_never(unreachable)
    if not step.calls:
        # A response that was cut off by the end of a process, or paused by the provider, is not
        # the last word of the model: it is asked to continue.
        return None if step.finish_reason in {None, "pause"} else LAST_WORD
    if _output_call(step, agent) is not None:
        return LAST_WORD
    return End("terminal_tool") if terminal_output(step, agent) else None


def end_event(state: ThreadState, end: End) -> RunCompleted | RunIncomplete:
    """Builds the terminal event of a run that ends by itself."""
    run, reason = run_of(state), end.reason
    if reason.startswith("max_") or reason == "content_filter":
        return RunIncomplete(run_id=run.id, stop_reason=reason, usage=run.usage, scope=end.scope)
    return RunCompleted(run_id=run.id, stop_reason=reason, usage=run.usage, output=end.output)


def terminal_output(step: Step, agent: AgentDefinition[Deps, Out]) -> FunctionCallOutput | None:
    """Returns the first output of a terminal tool that did not fail."""
    outputs = {output.call_id: output for output in step.outputs}
    for call in step.calls:
        if ends_run(agent, call.name) and not outputs[call.call_id].is_error:
            return outputs[call.call_id]
    return None


def final_answer(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> Answer:
    """Returns the answer of the last response, or the output of a terminal tool."""
    step = run_of(state).last_step
    if step is None:
        return Answer("")
    call = _output_call(step, agent)
    if call is not None:
        return Answer(call.arguments, is_call=True)
    output = terminal_output(step, agent)
    return Answer(output.text if output is not None else step_text(step))


def _output_call(step: Step, agent: AgentDefinition[Deps, Out]) -> FunctionCall | None:
    """Returns the first call that gave the output, and was not refused.

    Whatever the output mode is now: the run may have been resumed by a program with another one.
    """
    if agent.output is not None:
        for call in step.calls:
            output = step.output(call.call_id) if call.name == OUTPUT_TOOL else None
            if output is not None and not output.is_error:
                return call
    return None


def step_text(step: Step) -> str:
    """Returns the text of all messages of a step, joined."""
    return "".join(item.text for item in step.ordered if isinstance(item, Message))


def refusal_of(step: Step) -> str:
    """Returns the text with which the model refused, or an empty one."""
    return "".join(item.refusal for item in step.ordered if isinstance(item, Message))


def run_of(state: ThreadState) -> Run:
    """Returns the run in progress, or the one that ended last; there must be one."""
    assert state.run is not None
    return state.run
