"""Builds the request of a step."""

from collections.abc import Sequence

from msgspec.structs import replace

from treadle.domain.blocks import Block
from treadle.domain.rules import due_tools
from treadle.domain.settings import NamedTool, ToolChoice
from treadle.domain.state import Run, ThreadState
from treadle.loop.definition import AgentDefinition, Deps, Out, output_tool_of
from treadle.loop.outcome import run_of
from treadle.memory.blocks.prompt import compile_blocks
from treadle.models.base import ModelRequest
from treadle.tools.output_type import OUTPUT_TOOL
from treadle.tools.toolset import Toolset


def build_request(
    state: ThreadState,
    agent: AgentDefinition[Deps, Out],
    instructions: str,
    tools: Toolset,
    blocks: Sequence[Block] = (),
) -> ModelRequest:
    """Builds the request of the next step, in which the model may call `tools`; pure.

    The memory `blocks` follow the instructions, which change less often.
    """
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
    elif output_tool_of(agent) is not None:
        settings = replace(
            settings, tool_choice=_choice_of_output(agent, settings.tool_choice, run)
        )
    schemas, allowed = tools.schemas, agent.allowed_tools
    if allowed is not None:
        output_tool = output_tool_of(agent)
        names = {*allowed, *((output_tool.name,) if output_tool is not None else ())}
        schemas = tuple(schema for schema in schemas if schema.name in names)
    hosted = agent.hosted
    if allowed is not None:
        hosted = tuple(tool for tool in hosted if tool.name in allowed)
    if settings.tool_choice == "none":
        hosted = ()
    has_choice = settings.tool_choice is not None or settings.parallel_tool_calls is not None
    if has_choice and not schemas and not hosted:
        settings = replace(settings, tool_choice=None, parallel_tool_calls=None)
    if agent.extra_instructions:
        given = agent.extra_instructions
        instructions = f"{instructions}\n\n{given}" if instructions else given
    if agent.output is not None and agent.output_mode == "prompted":
        asked = agent.output.instructions
        instructions = f"{instructions}\n\n{asked}" if instructions else asked
    stable_chars = 0
    if blocks:
        compiled, stable_chars = compile_blocks(blocks), len(instructions)
        instructions = f"{instructions}\n\n{compiled}" if instructions else compiled
    read = state.context.items(state.history)
    return ModelRequest(
        items=read,
        conversation=state.history if read is not state.history else (),
        instructions=instructions,
        tools=schemas,
        hosted=hosted,
        output=(
            agent.output.schema
            if agent.output is not None and agent.output_mode == "native"
            else None
        ),
        settings=settings,
        stable_chars=stable_chars,
    )


def _choice_of_output(
    agent: AgentDefinition[Deps, Out], choice: ToolChoice | None, run: Run
) -> ToolChoice | None:
    """Returns the tool choice of a step in which a tool takes the output."""
    # "none" of the agent's own tools: the answer is what is left. After an answer that was not
    # valid, a model that ignores the tool is made to call one.
    if choice == "none":
        return NamedTool(OUTPUT_TOOL)
    takes_text = agent.output is not None and agent.output.takes_text
    is_free = choice is None or choice == "auto"
    return "required" if run.corrections and is_free and not takes_text else choice
