"""The hooks around a tool call: what it is called with, and what its output is."""

from collections.abc import Callable
from typing import Generic

import msgspec
from msgspec.structs import replace

from treadle.domain.items import FunctionCallOutput, OutputPart
from treadle.errors import HookFailed
from treadle.loop.hook_context import Deps, HookContext
from treadle.loop.hooks import ChangedArguments, Hook, Hooks, ToolCall, Veto
from treadle.tools.call import AnsweredCall, Prepared, PreparedCall, RefusedCall, prepare
from treadle.tools.output import to_output
from treadle.tools.toolset import Toolset


class ToolHooks(Generic[Deps]):
    """Calls the hooks of an agent around one call; `context` makes their context."""

    def __init__(self, hooks: Hooks[Deps], context: Callable[[], HookContext[Deps]]) -> None:
        self._before = hooks.at("before_tool")
        self._after = hooks.at("after_tool")
        self._context = context

    async def before(self, tools: Toolset, prepared: Prepared) -> tuple[Prepared, str]:
        """Returns the call as it is to be made, and the JSON of its arguments if they changed.

        Raises `HookFailed`.
        """
        arguments = ""
        for hook in self._before:
            if not isinstance(prepared, PreparedCall):
                break  # there is nothing left to decide
            answer = hook(self._context(), _seen(prepared))
            if answer is not None:
                answer = await hook.answer(answer)
            match answer:
                case Veto():
                    output = _output(hook, answer.output, prepared)
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

    async def after(self, prepared: Prepared, output: FunctionCallOutput) -> FunctionCallOutput:
        """Returns the output as the model is to read it; raises `HookFailed`."""
        if not self._after or isinstance(prepared, RefusedCall):
            return output
        for hook in self._after:
            answer = hook(self._context(), _seen(prepared), output)
            if answer is not None:
                answer = await hook.answer(answer)
            if answer is not None:
                output = replace(output, output=_output(hook, answer, prepared))
        return output


def _seen(prepared: PreparedCall | AnsweredCall) -> ToolCall:
    return ToolCall(prepared.call.call_id, prepared.call.name, prepared.arguments)


def _encoded(hook: "Hook[Callable[..., object]]", answer: ChangedArguments) -> str:
    try:
        return msgspec.json.encode(answer.arguments).decode()
    except (TypeError, ValueError) as error:
        raise HookFailed(f"The hook {hook.name} gave arguments that JSON cannot say.") from error


def _output(
    hook: "Hook[Callable[..., object]]", value: object, prepared: PreparedCall | AnsweredCall
) -> str | tuple[OutputPart, ...]:
    most = prepared.tool.max_output_chars if isinstance(prepared, PreparedCall) else 100_000
    try:
        return to_output(value, most)
    except TypeError as error:
        raise HookFailed(f"The hook {hook.name} gave an output that JSON cannot say.") from error
