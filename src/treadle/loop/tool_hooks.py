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
    """Calls the hooks of an agent around the calls of a step.

    `context` makes what they are given, when the first one is called.
    """

    def __init__(self, hooks: Hooks[Deps], context: Callable[[], HookContext[Deps]]) -> None:
        self._before = hooks.at("before_tool")
        self._after = hooks.at("after_tool")
        self._make_context = context
        self._made: HookContext[Deps] | None = None

    async def before(self, tools: Toolset, prepared: Prepared) -> tuple[Prepared, str]:
        """Returns the call that is to be made, and the JSON of its arguments if hooks changed them.

        Raises `HookFailed`.
        """
        arguments = ""
        for hook in self._before:
            if not isinstance(prepared, PreparedCall):
                break  # a veto, or arguments that are not valid: the tool is not called
            answer = hook(self._context(), _shown(prepared))
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
        """Returns the output that the model reads; raises `HookFailed`."""
        if not self._after or isinstance(prepared, RefusedCall):
            return output
        for hook in self._after:
            answer = hook(self._context(), _shown(prepared), output)
            if answer is not None:
                answer = await hook.answer(answer)
            if answer is not None:
                output = replace(output, output=_output(hook, answer, prepared))
        return output

    def _context(self) -> HookContext[Deps]:
        if self._made is None:
            self._made = self._make_context()
        return self._made


def _shown(prepared: PreparedCall | AnsweredCall) -> ToolCall:
    return ToolCall(prepared.call.call_id, prepared.call.name, prepared.arguments)


def _encoded(hook: "Hook[Callable[..., object]]", answer: ChangedArguments) -> str:
    try:
        return msgspec.json.encode(answer.arguments).decode()
    except (TypeError, ValueError) as error:
        raise HookFailed(
            f"The hook {hook.name} returned arguments that cannot be represented as JSON."
        ) from error


def _output(
    hook: "Hook[Callable[..., object]]", value: object, prepared: PreparedCall | AnsweredCall
) -> str | tuple[OutputPart, ...]:
    most = prepared.tool.max_output_chars if isinstance(prepared, PreparedCall) else 100_000
    try:
        return to_output(value, most)
    except TypeError as error:
        raise HookFailed(
            f"The hook {hook.name} returned an output that cannot be represented as JSON."
        ) from error
