"""Builds the request of a step: a pure function, if the instructions of the agent are one."""

from collections.abc import Callable, Sequence
from typing import cast

from msgspec.structs import replace

from treadle.domain.arguments import shown
from treadle.domain.blocks import Block
from treadle.domain.rules import due_tools
from treadle.domain.state import ThreadState
from treadle.errors import HookFailed
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.outcome import run_of
from treadle.memory.blocks.prompt import compile_blocks
from treadle.models.base import ModelRequest, NamedTool
from treadle.tools.failure import explain_failure, reraise_interrupt
from treadle.tools.toolset import Toolset


def build_request(
    state: ThreadState,
    agent: AgentDefinition[Deps, Out],
    deps: Deps,
    tools: Toolset,
    blocks: Sequence[Block] = (),
) -> ModelRequest:
    """Builds the request of the next step, in which the model may call `tools`.

    The memory `blocks` follow the instructions, which change less often. Raises `HookFailed` if
    the function that writes the instructions does not return them.
    """
    instructions = agent.instructions
    settings = agent.settings
    choice = settings.tool_choice
    # Forced in every step, a call would keep the run from ever ending: only the first step forces.
    run, first = run_of(state), agent.rules.first
    if run.steps - run.interrupted > 1 and (choice == "required" or isinstance(choice, NamedTool)):
        settings = replace(settings, tool_choice=None)
    if first is not None and not run.count_of(first).made:
        settings = replace(settings, tool_choice=NamedTool(first))
    elif due := due_tools(agent.rules, state):
        choice = NamedTool(due[0]) if len(due) == 1 else "required"
        settings = replace(settings, tool_choice=choice)
    choice = settings.tool_choice
    if isinstance(choice, NamedTool) and tools.get(choice.name) is None:
        settings = replace(settings, tool_choice=None)  # its source does not offer it now
    if not tools.schemas:
        settings = replace(settings, tool_choice=None, parallel_tool_calls=None)
    text = instructions if isinstance(instructions, str) else _called(instructions, deps)
    if blocks:
        text = f"{text}\n\n{compile_blocks(blocks)}" if text else compile_blocks(blocks)
    read = state.context.items(state.history)
    return ModelRequest(
        items=read,
        conversation=state.history if read is not state.history else (),
        instructions=text,
        tools=tools.schemas,
        output=agent.output.schema if agent.output is not None else None,
        settings=settings,
    )


def _called(instructions: Callable[[Deps], str], deps: Deps) -> str:
    try:
        text = cast("object", instructions(deps))
        if isinstance(text, str):
            return text
        raise TypeError(f"it returned {shown(text)}; return a text")
    except BaseException as error:  # foreign code may raise anything
        reraise_interrupt(error)
        name = getattr(instructions, "__qualname__", type(instructions).__qualname__)
        raise HookFailed(f"The instructions {name} failed: {explain_failure(error)}") from error
