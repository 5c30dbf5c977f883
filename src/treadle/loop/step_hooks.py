"""The hooks in one step: around the request of the model, and around each tool call."""

from collections.abc import Callable
from typing import Generic

import msgspec
from msgspec.structs import replace

from treadle.domain.items import FunctionCallOutput, OutputPart
from treadle.errors import HookFailed
from treadle.loop.activation import Activation
from treadle.loop.definition import Deps, Out
from treadle.loop.hook_context import HookContext
from treadle.loop.hooks import ChangedArguments, Hook, ToolCall, Veto
from treadle.models.base import ModelRequest
from treadle.tools.call import AnsweredCall, Prepared, PreparedCall, RefusedCall, prepare
from treadle.tools.failure import reraise_interrupt
from treadle.tools.output import encode_output
from treadle.tools.toolset import Toolset


class StepHooks(Generic[Deps, Out]):
    """Calls the hooks of an agent in one step; all of them are given the same context."""

    def __init__(self, activation: Activation[Deps, Out]) -> None:
        self._activation = activation
        self._hooks = activation.agent.hooks
        self._context: HookContext[Deps] | None = None  # made when the first hook is called

    async def before_model(self, request: ModelRequest) -> ModelRequest:
        """Returns the request that is sent; raises `HookFailed`."""
        for hook in self._hooks.at("before_model"):
            answer = hook(self._given, request)
            if answer is not None:
                answer = await hook.answer(answer)
            if isinstance(answer, ModelRequest):
                request = answer
            elif answer is not None:
                raise HookFailed(
                    f"The hook {hook.name} returned {type(answer).__name__}; return a "
                    "ModelRequest or None."
                )
        return request

    async def before_tool(self, tools: Toolset, prepared: Prepared) -> tuple[Prepared, str]:
        """Returns the call that is to be made, and the JSON of its arguments if hooks changed them.

        Raises `HookFailed`.
        """
        arguments = ""
        for hook in self._hooks.at("before_tool"):
            if not isinstance(prepared, PreparedCall):
                break  # a veto, or arguments that are not valid: the tool is not called
            answer = hook(self._given, _shown(prepared))
            if answer is not None:
                answer = await hook.answer(answer)
            match answer:
                case Veto():
                    output = await _output(hook, answer.output, prepared)
                    prepared = AnsweredCall(
                        prepared.call, prepared.arguments, output, answer.is_error
                    )
                case ChangedArguments():
                    arguments = _encoded(hook, answer)
                    prepared = prepare(tools, replace(prepared.call, arguments=arguments))
                case None:
                    pass
                case _:
                    raise HookFailed(
                        f"The hook {hook.name} returned {type(answer).__name__}; return a Veto, "
                        "ChangedArguments or None."
                    )
        return prepared, arguments

    async def after_tool(
        self, prepared: Prepared, output: FunctionCallOutput
    ) -> FunctionCallOutput:
        """Returns the output that the model reads; raises `HookFailed`."""
        if isinstance(prepared, RefusedCall):
            return output
        for hook in self._hooks.at("after_tool"):
            answer = hook(self._given, _shown(prepared), output)
            if answer is not None:
                answer = await hook.answer(answer)
            if answer is not None:
                output = replace(output, output=await _output(hook, answer, prepared))
        return output

    @property
    def _given(self) -> HookContext[Deps]:
        if self._context is None:
            self._context = self._activation.hook_context()
        return self._context


def _shown(prepared: PreparedCall | AnsweredCall) -> ToolCall:
    return ToolCall(prepared.call.call_id, prepared.call.name, prepared.arguments)


def _encoded(hook: "Hook[Callable[..., object]]", answer: ChangedArguments) -> str:
    try:
        return msgspec.json.encode(answer.arguments).decode()
    except BaseException as error:  # a mapping is foreign code, and may raise anything
        reraise_interrupt(error)
        raise HookFailed(
            f"The hook {hook.name} returned arguments that cannot be represented as JSON."
        ) from error


async def _output(
    hook: "Hook[Callable[..., object]]", value: object, prepared: PreparedCall | AnsweredCall
) -> str | tuple[OutputPart, ...]:
    most = prepared.tool.max_output_chars if isinstance(prepared, PreparedCall) else 100_000
    try:
        return await encode_output(value, most)
    except BaseException as error:  # so may what serializes an output
        reraise_interrupt(error)
        raise HookFailed(
            f"The hook {hook.name} returned an output that cannot be represented as JSON."
        ) from error
