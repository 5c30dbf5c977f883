"""Plays a scenario: the response of the simulated model to one request."""

import msgspec

from treadle.domain.schema import ToolSchema
from treadle.testing.simulator.prose import prose
from treadle.testing.simulator.request import ProviderRequest
from treadle.testing.simulator.scenario import Scenario
from treadle.testing.simulator.turn import Call, Output, Reasoning, Refusal, Text, Turn
from treadle.tools.example import fill


def play(scenario: Scenario, request: ProviderRequest) -> Turn:
    """Returns the turn that `scenario` prescribes for `request`: calls, or the final answer."""
    outputs: list[Output] = []
    if scenario.reasoning:
        text = prose(scenario.reasoning * scenario.size)
        outputs.append(Reasoning(text, scenario.reasoning))
    outputs += _calls(scenario, request) or [_answer(scenario)]
    if scenario.finish != "stop":
        outputs[-1] = _half(outputs[-1])
    return Turn(
        tuple(outputs),
        finish=scenario.finish,
        first=scenario.first,
        every=scenario.every,
        batch=scenario.batch,
    )


def _answer(scenario: Scenario) -> Output:
    text = prose(scenario.deltas * scenario.size)
    return (Refusal if scenario.refusal else Text)(text, scenario.deltas)


def _calls(scenario: Scenario, request: ProviderRequest) -> list[Output]:
    tools = _callable(scenario, request)
    if not tools or request.rounds >= scenario.rounds:
        return []
    first = request.rounds * scenario.calls
    return [_call(tools, first + n, scenario) for n in range(scenario.calls)]


def _callable(scenario: Scenario, request: ProviderRequest) -> list[ToolSchema]:
    if request.tool_choice.mode == "none":
        return []
    if not scenario.tool:
        return list(request.tools)
    declared = request.tool(scenario.tool)
    return [declared or ToolSchema(scenario.tool, "", {}, strict=False)]


def _call(tools: list[ToolSchema], number: int, scenario: Scenario) -> Call:
    tool = tools[number % len(tools)]
    arguments = fill(tool.parameters, number, scenario.args)
    text = msgspec.json.encode(arguments).decode()
    return Call(tool.name, text, deltas=-(-len(text) // scenario.size))


def _half(output: Output) -> Output:
    match output:
        case Call():
            return msgspec.structs.replace(
                output, arguments=output.arguments[: -(-len(output.arguments) // 2)]
            )
        case Text() | Refusal() | Reasoning():
            return msgspec.structs.replace(output, text=output.text[: len(output.text) // 2])
        case _:
            return output
