"""Which calls of the model are not made; pure functions of the state and the agent."""

from collections.abc import Sequence

from treadle.domain.items import FunctionCall
from treadle.domain.open_step import Step
from treadle.domain.rules import broken_rule, missing_tools
from treadle.domain.state import Run, ThreadState
from treadle.loop.definition import AgentDefinition, Deps, Out, ends_run, output_tool_of
from treadle.loop.outcome import run_of
from treadle.streaming.demux import MAX_CALLS
from treadle.tools.output_type import OUTPUT_TOOL


def refusal_of_call(
    state: ThreadState, agent: AgentDefinition[Deps, Out], call: FunctionCall
) -> str | None:
    """Returns why a call of the open step is not made, if a rule or a limit forbids it."""
    run, step = run_of(state), state.step
    rules, limits = agent.rules, agent.limits
    calls = step.calls if step is not None else ()
    place = next((n for n, one in enumerate(calls) if one.call_id == call.call_id), len(calls))
    if place >= MAX_CALLS:
        return (
            f"A response may contain {MAX_CALLS} calls; the call of {call.name} and all calls "
            "after it were not made."
        )
    if output_tool_of(agent) is not None and call.name == OUTPUT_TOOL:
        return None  # the answer is checked at the end of the step, as any other
    most = limits.max_tool_calls
    if most is not None and run.calls + place - _outputs(run, agent, calls[:place]) >= most:
        return f"The run may make {most} tool calls; {call.name} was not called."
    allowed = agent.allowed_tools
    if allowed is not None and call.name not in allowed:
        return f"Only {', '.join(allowed)} may be called in this run; {call.name} was not called."
    known = agent.tools.get(call.name)
    if known is not None and known.handoff:
        if limits.max_handoffs is not None and run.handoffs >= limits.max_handoffs:
            return "The conversation was handed over too often; answer yourself."
        if step is not None and any(_hands_off(agent, step, one) for one in calls[:place]):
            return "The conversation is handed over already."
    if ends_run(agent, call.name):
        missing = [name for name in missing_tools(rules, run) if name != call.name]
        if missing:
            names = " and ".join(missing)
            return f"Call {names} before {call.name}; {call.name} was not called."
    return broken_rule(rules, state, call, calls[:place])


def _outputs(run: Run, agent: AgentDefinition[Deps, Out], calls: Sequence[FunctionCall]) -> int:
    """Returns how many calls were those that gave the output."""
    if output_tool_of(agent) is None:
        return 0
    return run.count_of(OUTPUT_TOOL).made + sum(call.name == OUTPUT_TOOL for call in calls)


def _hands_off(agent: AgentDefinition[Deps, Out], step: Step, call: FunctionCall) -> bool:
    """Returns whether a call hands the run over, or is about to, not having failed."""
    known, output = agent.tools.get(call.name), step.output(call.call_id)
    return known is not None and bool(known.handoff) and not (output and output.is_error)
