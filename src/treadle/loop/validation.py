"""Asks the output validators of an agent about the answer of a run."""

from typing import cast

from treadle.domain.events import ValidatedOutput
from treadle.domain.items import FunctionCall, Message
from treadle.domain.open_step import Step
from treadle.domain.removed_items import key_of
from treadle.errors import HookFailed, ModelRetry
from treadle.loop.activation import Activation
from treadle.loop.definition import Deps, Out, encode_output
from treadle.loop.output_validators import Verdict


async def validate(activation: Activation[Deps, Out], step: int, output: Out) -> Verdict:
    """Calls the validators in order, each with what the one before returned.

    An output that differs at the end, because it was returned or changed in place, takes the place
    of the answer. Raises `HookFailed`.
    """
    agent, context = activation.agent, activation.run_context()
    before = _encoded(activation, output)
    for validator in agent.output_validators:
        try:
            changed = await validator.result(context, output)
        except ModelRetry as error:
            return Verdict(step, problem=error.message or "It was refused.")
        if changed is not None:
            output = cast("Out", changed)
    after = _encoded(activation, output)
    if after == before:
        return Verdict(step)
    try:
        agent.parse(after)
    except ValueError as error:
        raise _not_an_output(activation, error) from error
    last = activation.run.last_step
    return Verdict(step, output=ValidatedOutput(after, _keys(last) if last is not None else ()))


def _encoded(activation: Activation[Deps, Out], output: Out) -> str:
    agent = activation.agent
    try:
        if agent.output is None and not isinstance(output, str):
            raise ValueError(f"it is a {type(output).__name__}, not a text")
        return encode_output(agent, output)
    except ValueError as error:
        raise _not_an_output(activation, error) from error


def _not_an_output(activation: Activation[Deps, Out], error: ValueError) -> HookFailed:
    output = activation.agent.output
    name = "text" if output is None else output.schema.name
    problem = str(error) if output is None else output.explain(error)
    return HookFailed(f"The output validators made an output that is not a valid {name}: {problem}")


def _keys(step: Step) -> tuple[str, ...]:
    """Returns the keys of the items that an answer may be made of."""
    return tuple(key_of(item) for item in step.ordered if isinstance(item, Message | FunctionCall))
