"""What an agent is: its model, instructions, tools, output and limits, and what follows of them."""

# What the loop asks of an agent is a function of this module and not a method, because editors
# offer the methods of `AgentDefinition` to users of `Agent`.
# pyright: reportPrivateUsage=false

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Concatenate, Generic, Literal, cast, get_args

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from typing_extensions import TypeForm, TypeVar, Unpack

from treadle.domain.arguments import require_list, require_text, require_type, shown
from treadle.domain.block_edits import require_blocks
from treadle.domain.blocks import Block
from treadle.domain.hosted_tools import HostedTool, RemoteMCP
from treadle.domain.hosted_tools import described as described_tool
from treadle.domain.keywords import suggests
from treadle.domain.limits import NO_LIMITS, Limits
from treadle.domain.options import AllowedTools, RunOptions
from treadle.domain.overridable import Allowed, overridable_of, require_overridable
from treadle.domain.rules import ToolRules
from treadle.domain.schema import OutputMode
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.domain.usage import Price, Usage
from treadle.errors import ConfigurationError, DuplicateTool, ToolUnsupported
from treadle.jobs.failure import OnFailure, require_on_failure
from treadle.loop.catalog import Catalog
from treadle.loop.hooks import POINTS, Hooks
from treadle.loop.options import OptionArguments, Output, make_options
from treadle.loop.output_validators import OutputValidator, validators_of
from treadle.memory.compaction.budget import ContextBudget, budget_of
from treadle.memory.compaction.strategies import ContextStrategy, NoCompaction
from treadle.memory.sleep import SleepAgent
from treadle.models.base import Model, output_mode_of, tool_refusal
from treadle.models.prices import PRICES, price_of
from treadle.models.resolve import resolve_model
from treadle.models.retry import RetryPolicy
from treadle.tools.callables import Now, UserFunction, name_of, user_function
from treadle.tools.context import RunContext
from treadle.tools.function import PlainFunction, Tool
from treadle.tools.handoff import handoff_tool
from treadle.tools.output_type import OUTPUT_TOOL, OutputType
from treadle.tools.source import ToolSource, ToolSources
from treadle.tools.streamed import require_streamable
from treadle.tools.toolset import Toolset

# An agent whose tools need nothing of their deps can be run with any: so it is contravariant.
Deps = TypeVar("Deps", default=None, contravariant=True)  # noqa: PLC0105 - a name of the API
Out = TypeVar("Out", default=str)

OnInterruption = Literal["retry", "fail"]

KNOWN_AS = {
    **{field: f"settings=ModelSettings({field}=…)" for field in ModelSettings.__struct_fields__},
    **dict.fromkeys(("system_prompt", "system", "prompt", "system_message"), "instructions=…"),
    **dict.fromkeys(("functions", "toolsets", "tool_list"), "tools=[…]"),
    **dict.fromkeys(
        ("output_type", "result_type", "response_format", "response_model", "output_schema"),
        "output=…",
    ),
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens"), "settings=ModelSettings(max_output_tokens=…)"
    ),
    **dict.fromkeys(("model_settings", "model_kwargs"), "settings=ModelSettings(…)"),
    **dict.fromkeys(
        ("deps", "deps_type", "context_type"), "Agent[Deps](…), and deps=… where it is run"
    ),
    **dict.fromkeys(("max_turns", "max_steps", "recursion_limit"), "limits=Limits(max_steps=…)"),
    **dict.fromkeys(("retries", "max_retries"), "retry=RetryPolicy(max_retries=…)"),
    **dict.fromkeys(("usage_limits",), "limits=Limits(…)"),
    **dict.fromkeys(("agents", "sub_agents"), "tools=[agent.as_tool()], or handoffs=[agent]"),
    **dict.fromkeys(("memory", "memory_blocks"), "blocks=[Block(…)]"),
}
"""What other libraries call the parameters of an agent."""

MAX_STEPS = 32
"""The limit of responses in a run whose limits do not set one."""

ToolFor = (
    Tool[..., object, Deps] | Callable[Concatenate[RunContext[Deps], ...], object] | PlainFunction
)
"""A tool or a function, for agents whose deps are `Deps` or a subtype."""

AnyTool = Tool[..., object] | Callable[..., object]
Instructions = str | Callable[[], Now[str]] | Callable[[RunContext[Deps]], Now[str]]


class AgentDefinition(Generic[Deps, Out]):
    """An agent as the loop sees it: what it was given, checked, and questions about it.

    It runs nothing and keeps nothing of a run. Only `add_handoff` changes it.
    """

    @suggests("Agent", KNOWN_AS)
    def __init__(
        self,
        model: Model | str,
        *,
        name: str = "agent",
        description: str = "",
        instructions: Instructions[Deps] = "",
        tools: Iterable[ToolFor[Deps] | ToolSource | HostedTool] | None = None,
        output: type[Out] | TypeForm[Out] | UnsetType = UNSET,
        output_validators: Iterable[OutputValidator[Deps, Out]] | None = None,
        output_mode: OutputMode | None = None,
        settings: ModelSettings | None = None,
        context: ContextStrategy | None = None,
        limits: Limits | None = None,
        thread_limits: Limits | None = None,
        rules: ToolRules | None = None,
        hooks: Hooks[Deps] | Sequence[Hooks[Deps]] | None = None,
        handoffs: "Iterable[AgentDefinition[Any, Any]]" = (),
        retry: RetryPolicy | None = None,
        early_tools: bool = True,
        action_timeout: float | None = None,
        max_parallel_tools: int = 16,
        max_corrections: int = 2,
        to_user: bool | str = False,
        stream_fields: Iterable[str] = (),
        blocks: Iterable[Block] = (),
        sleep_agent: "SleepAgent | AgentDefinition[Any, Any] | None" = None,
        on_job_failure: OnFailure = "fail_fast",
        on_interruption: OnInterruption | None = None,
        examples: Iterable[str] = (),
        overridable: Iterable[str] | Mapping[str, Allowed] = (),
    ) -> None:
        """Makes an agent.

        - `model`: a model, or a string such as `"openai:gpt-5"`; see `resolve_model`.
        - `name`: identifies the agent in events and on threads; unique within a runtime.
        - `description`: what the agent is good for; read by agents that may call it or hand off to
          it.
        - `instructions`: a text, or a function that returns one before each step: plain or async,
          with the `RunContext` of the run as an optional parameter.
        - `tools`: tools; plain functions, which become tools with default options; sources of tools
          such as `treadle.mcp.MCPTools`, which are asked for their tools before each step; and
          hosted tools, such as `WebSearch`, which the provider of the model runs.
        - `output`: the type of the result, or a union of types. Anything but `str` asks the model
          for JSON of that type; an invalid answer is sent back for correction at most
          `max_corrections` times.
        - `output_validators`: functions of the output, or of the context and the output, plain or
          async. They may return a changed output, or raise `ModelRetry` to ask for another answer.
        - `output_mode`: how the model is asked for the output: with a JSON Schema in the request
          ("native"), a tool that takes the output ("tool"), or instructions ("prompted"). None is
          the mode of the model.
        - `settings`: options of the request. A forced tool choice applies to the first step only.
        - `context`: how a finite window is handled; see `treadle.memory`. None sends the whole
          history.
        - `limits`: limits of each run; `thread_limits`: limits of all runs of a thread together.
        - `rules`: the order and number of tool calls.
        - `hooks`: functions that are called at defined points of a run.
        - `handoffs`: agents that may continue a run of this one; see also `add_handoff`.
        - `retry`: how often failed requests are repeated, and after which pauses.
        - `early_tools`: starts a tool as soon as its own arguments are complete.
        - `action_timeout`: seconds that a run waits for outputs and approvals from outside before
          it expires; None waits forever.
        - `max_parallel_tools`: how many tools of one step run at the same time.
        - `to_user`: adds a parameter to each tool, in which the model writes what it is about to
          do; True names it "to_user".
        - `stream_fields`: string fields of the structured output that are published while they
          grow.
        - `blocks`: the memory blocks that are read before each step, in this order. A thread gets
          those it does not have yet, unless they were deleted; its other blocks are read as well.
        - `sleep_agent`: updates the memory blocks in the background; see
          `treadle.memory.SleepAgent`.
        - `on_interruption`: what happens if a response breaks off after a part of it was seen, or
          the process ends within one: `"retry"` asks the model again (`step.interrupted` takes back
          what was seen), `"fail"` fails the run. By default, runs of threads retry and foreground
          runs fail.
        - `on_job_failure`: what happens if a job of a run fails while no code awaits it:
          `"fail_fast"` cancels the other jobs and fails the run, `"collect"` lets them continue.
        - `examples`: messages that a page offers to begin with; the model does not read them.
        - `overridable`: the options of a run that callers over the network may give, checked by
          `check_options`; by default none. A list of their names, or a dict: `"model"` needs the
          list of the models, `"settings"` may list some of the fields, `"tools"` the names of tools
          of the program that may be added next to those the caller answers. Limits may only be
          narrowed.

        Raises `ConfigurationError` for parameters that cannot work together, and `TypeError` for a
        keyword that is not a parameter, with the name of the right one.
        """
        _require_types(name, description, settings, limits, thread_limits, rules, hooks, retry)
        if max_parallel_tools < 1:
            raise ConfigurationError("max_parallel_tools must be at least 1.")
        if action_timeout is not None and not action_timeout > 0:
            raise ConfigurationError("action_timeout must be above 0, or None to wait forever.")
        if max_corrections < 0:
            raise ConfigurationError("max_corrections cannot be negative.")
        require_on_failure("on_job_failure", on_job_failure)
        if on_interruption not in {None, "retry", "fail"}:
            raise ConfigurationError(
                f"on_interruption={on_interruption!r} is not known; use retry or fail."
            )
        self.model = resolve_model(model)
        self.name = name
        self.description = description
        self.instructions = _instructions_of(instructions)
        self.extra_instructions = ""
        self.overridable = overridable_of(overridable)
        listed = require_list("tools", () if tools is None else tools, "tools=[f]")
        given = cast("tuple[AnyTool | ToolSource | HostedTool, ...]", listed)
        self.hosted = tuple(tool for tool in given if isinstance(tool, HostedTool))
        self._own_tools = tuple(
            tool for tool in given if not isinstance(tool, ToolSource | HostedTool)
        )
        self._to_user = to_user
        self.tools = Toolset(self._own_tools, to_user=to_user)
        sources = (one for one in given if isinstance(one, ToolSource))
        self.sources = ToolSources(sources, to_user=to_user)
        self.handoffs: dict[str, AgentDefinition[Any, Any]] = {}
        self._others: tuple[AgentDefinition[Any, Any], ...] = tuple(_workers(self.tools))
        is_text = cast("object", output) in (UNSET, None, str)
        self.output = None if is_text else OutputType(cast("type[Out]", output))
        self._output_mode: OutputMode | None = self._checked_mode(output_mode)
        self.output_validators = validators_of(output_validators or ())
        self.stream_fields = _streamed_of(self.output, stream_fields)
        self.settings = settings or ModelSettings()
        self.allowed_tools: tuple[str, ...] | None = None
        self.limits = (limits or Limits()).or_steps(MAX_STEPS)
        self.thread_limits = NO_LIMITS if thread_limits is None else thread_limits.or_steps(None)
        self.price = _price_of(self.model.name, self.limits, self.thread_limits)
        self.retry = retry or RetryPolicy()
        self.blocks = cast("tuple[Block, ...]", require_list("blocks", blocks, "blocks=[Block(…)]"))
        require_blocks(self.blocks)
        self._context = context
        self.budget = None if context is None else self._budget_of(context)
        self._given: Limits | None = None
        self._options: tuple[RunOptions, Catalog, str] | None = None
        self._hash = ""
        self.rules = rules or ToolRules()
        self._has_rules = self.rules != ToolRules() or self.limits.max_tool_calls is not None
        self.hooks: Hooks[Deps] = (
            hooks if isinstance(hooks, Hooks) else sum(hooks or (), Hooks[Deps]())
        )
        self.early_tools = early_tools
        self.sleep_agent = _sleeper(sleep_agent, context)
        if self.sleep_agent is not None:
            self._others = (
                *self._others,
                cast("AgentDefinition[Any, Any]", self.sleep_agent.agent),
            )
        self.on_job_failure: OnFailure = on_job_failure
        self.on_interruption: OnInterruption | None = on_interruption
        given_examples = require_list("examples", examples, 'examples=["…"]')
        self.examples = tuple(require_text("An example", one) for one in given_examples)
        self.action_timeout = action_timeout
        self.max_parallel_tools = max_parallel_tools
        self.max_corrections = max_corrections
        for agent in require_list("handoffs", handoffs, "handoffs=[agent]"):
            self.add_handoff(cast("AgentDefinition[Any, Any]", agent))
        self._require_hosted()
        self._require_known_tools()
        self._require_price()
        self._require_names()

    def add_handoff(self, agent: "AgentDefinition[Any, Any]") -> None:
        """Lets this agent hand a run over to another, with a tool `transfer_to_…`.

        Needed by agents that hand over to each other, because one of them is made first. Raises
        `ConfigurationError` for a circle without `Limits.max_handoffs`, and for two agents or
        tools of one name.
        """
        require_type("An entry of handoffs", agent, AgentDefinition, "handoffs=[agent]")
        other = reachable_from(agent).get(self.name)
        if other is self and (
            self.limits.max_handoffs is None or agent.limits.max_handoffs is None
        ):
            raise ConfigurationError(
                f"{self.name} and {agent.name} hand over to each other; give both a "
                "Limits.max_handoffs, so that it ends."
            )
        if agent.name in self.handoffs:
            raise ConfigurationError(f"{self.name} already hands over to {agent.name!r}.")
        tools = [handoff_tool(one.name, one.description) for one in self.handoffs.values()]
        tools.append(handoff_tool(agent.name, agent.description))
        self.tools = Toolset((*self._own_tools, *tools), to_user=self._to_user)
        self.handoffs[agent.name] = agent
        self._others = (*self._others, agent)
        self._require_names()

    def parse(self, text: str, *, is_call: bool = False) -> Out:
        """Returns the output that an answer represents; raises `ValueError`.

        `is_call`: the text is the arguments of the call that gave the output.
        """
        if self.output is None:
            return cast("Out", text)
        return self.output.parse_call(text) if is_call else self.output.parse(text)

    @property
    def output_mode(self) -> OutputMode:
        """How the model is asked for structured output."""
        if self._output_mode is not None:
            return self._output_mode
        if self.output is not None and self.output.takes_text:
            return "tool"  # the only one in which a text is a text
        has_tools = bool(self.tools.names or self.sources or self.hosted)
        return output_mode_of(self.model, with_tools=has_tools)

    def check_options(
        self, *, output: Output | None = None, **options: Unpack[OptionArguments]
    ) -> None:
        """Checks options that come over the network against `overridable`, before they are sent.

        The parameters are those of `Thread.send`. Raises `OptionNotAllowed` for the first option
        that callers may not give, or not with this value, and what `send` raises.
        """
        given = make_options(Catalog(), options, output, function="check_options", is_kept=True)
        if given is not None:
            require_overridable(given, self.overridable, self.limits)

    def _apply_model(self, options: RunOptions, catalog: Catalog) -> None:
        settings, limits = options.settings, options.limits
        if options.model:
            self.model = catalog.model(options.model)
        if settings is not None:
            self.settings = self.settings.updated(settings)
        if limits is not None:
            limits = self.limits.updated(limits)
            self.limits = limits if self._given is None else limits.within(self._given)
            self._has_rules = self._has_rules or self.limits.max_tool_calls is not None
        if options.model:
            self._require_hosted()
        if options.model or limits is not None:
            known = (self.limits, self.thread_limits)
            # A price that the agent was given is that of its own model.
            own = options.limits.price if options.limits is not None else None
            if options.model:
                known = tuple(replace(one, price=None) for one in known)
            self.price = own or _price_of(self.model.name, *known)
            self._require_price()
        if self._context is not None and (options.model or settings is not None):
            self.budget = self._budget_of(self._context)

    def _apply_tools(self, options: RunOptions, catalog: Catalog, *, is_first: bool) -> None:
        added = [catalog.tool(one) for one in options.tools]
        if not is_first:  # what the agent has itself counts, as with sources
            added = [tool for tool in added if self.tools.get(tool.name) is None]
        if added:
            self._own_tools = (*self._own_tools, *added)
            self.tools = Toolset((*self.tools, *added), to_user=self._to_user)
            self._others = (*self._others, *_workers(Toolset(added)))
        choice = options.tool_choice
        if isinstance(choice, AllowedTools):
            self.allowed_tools = choice.names
            self.settings = replace(
                self.settings, tool_choice="required" if choice.required else None
            )
        elif choice is not None:
            self.settings = replace(self.settings, tool_choice=choice)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name!r}, name={self.name!r})"

    def _checked_mode(self, mode: OutputMode | None) -> OutputMode | None:
        if mode is not None and mode not in get_args(OutputMode):
            raise ConfigurationError(
                f"output_mode cannot be {shown(mode)}; use native, tool, prompted, or None for the "
                "mode of the model."
            )
        if mode is not None and self.output is None:
            raise ConfigurationError("output_mode needs a type of the output: output=….")
        if self.output is not None and OUTPUT_TOOL in self.tools.names:
            raise ConfigurationError(
                f"The tool {OUTPUT_TOOL!r} has the name of the one that takes the output; rename "
                "it with tool(name=…)."
            )
        return mode

    def _budget_of(self, context: ContextStrategy) -> ContextBudget:
        def price(model: str) -> Price | None:
            if model == self.model.name:
                return self.price
            tables = [limits.prices for limits in (self.limits, self.thread_limits)]
            known = (price_of(model, table) for table in (*tables, PRICES) if table is not None)
            return next((price for price in known if price is not None), None)

        budget = budget_of(
            context,
            self.model,
            max_output_tokens=self.settings.max_output_tokens,
            retry=self.retry,
            price_of=price,
        )
        if any(block.label == budget.block and block.shared for block in self.blocks):
            raise ConfigurationError(
                f"The summary cannot be kept in the block {budget.block!r}, which is shared: each "
                "thread has a summary of its own. Name another block."
            )
        return budget

    def _require_names(self) -> None:
        """Raises `ConfigurationError` if two agents have the same name."""
        known = reachable_from(self)
        for agent in known.values():
            for other in agent._others:
                if known[other.name] is not other:
                    raise ConfigurationError(
                        f"Two agents are called {other.name!r}; give one another name=…."
                    )

    def _require_price(self) -> None:
        limited = self.limits.max_cost or self.thread_limits.max_cost
        if limited is not None and self.price is None:
            raise ConfigurationError(
                f"The price of {self.model.name!r} is not known, and max_cost needs it: "
                "Limits(max_cost=…, price=Price(input=…, output=…))."
            )

    def _require_hosted(self) -> None:
        """Raises for hosted tools that the model does not have, and for two with one name."""
        names = [*self.tools.names, *(tool.name for tool in self.hosted)]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise DuplicateTool(f"Two tools are called {double!r}; rename one.")
        for tool in self.hosted:
            if refusal := tool_refusal(self.model, tool):
                kind = type(tool)
                raise ToolUnsupported(
                    f"{refusal} {kind.__name__} is a hosted tool of {kind.providers}."
                )

    def _require_known_tools(self) -> None:
        if self.sources:
            return  # the names of their tools are not known yet
        hosted = {tool.name for tool in self.hosted}
        for name in self.allowed_tools or ():
            if name not in self.tools.names and name not in hosted:
                known = ", ".join(self.tools.names) or "none"
                raise ConfigurationError(
                    f"AllowedTools names {name!r}, which is not a tool of this agent; it has: "
                    f"{known}."
                )
        for name in sorted(self.rules.names):
            if name not in self.tools.names:
                known = ", ".join(self.tools.names) or "none"
                raise ConfigurationError(
                    f"A rule names the tool {name!r}, which this agent does not have; it has: "
                    f"{known}."
                )
        demanded = {self.rules.first, *self.rules.required} - {None}
        if self.allowed_tools is not None and not demanded.issubset(self.allowed_tools):
            raise ConfigurationError(
                f"A rule of the agent demands {', '.join(sorted(map(str, demanded)))}, and "
                f"AllowedTools allows only {', '.join(self.allowed_tools)}."
            )
        choice = self.settings.tool_choice
        if isinstance(choice, NamedTool) and choice.name not in self.tools.names:
            known = ", ".join(self.tools.names) or "none"
            raise ConfigurationError(
                f"The tool choice {choice.name!r} is not a tool of this agent; it has: {known}."
            )
        if choice == "required" and not (self.tools.names or hosted):
            raise ConfigurationError('tool_choice="required" needs at least one tool.')


def reachable_from(agent: AgentDefinition[Any, Any]) -> "Mapping[str, AgentDefinition[Any, Any]]":
    """Returns the agents that may work on the runs of an agent or for them, by name, with it."""
    if not agent._others:
        return {agent.name: agent}
    found: dict[str, AgentDefinition[Any, Any]] = {}
    left: list[AgentDefinition[Any, Any]] = [agent]
    while left:
        agent = left.pop()
        if agent.name in found:
            continue
        found[agent.name] = agent
        left += agent._others
    return found


def cost_of(agent: AgentDefinition[Any, Any], usage: Usage) -> float:
    """Returns what tokens cost with its model; 0 if its price is not known."""
    price = agent.price
    return price.cost(usage) if price is not None else 0.0


def encode_output(agent: AgentDefinition[Any, Out], output: Out) -> str:
    """Returns the text that `parse` makes an output of; raises `ValueError`."""
    return cast("str", output) if agent.output is None else agent.output.encode(output)


def output_tool_of(agent: AgentDefinition[Any, Any]) -> Tool[..., object] | None:
    """Returns the tool that takes the output, if the model is asked for it in this way."""
    output = agent.output
    return output.tool if output is not None and agent.output_mode == "tool" else None


def has_listeners(agent: AgentDefinition[Any, Any]) -> bool:
    """Whether one of the agents that may work on a run has hooks `on_event`."""
    return any(one.hooks.at("on_event") for one in reachable_from(agent).values())


def attends_ends(agent: AgentDefinition[Any, Any]) -> bool:
    """Whether hooks are called when a run has ended."""
    return has_listeners(agent) or any(
        one.hooks.at("on_run_end") for one in reachable_from(agent).values()
    )


def is_restricted(agent: AgentDefinition[Any, Any]) -> bool:
    """Whether rules or limits may forbid a call."""
    return agent._has_rules or bool(agent.handoffs) or agent.allowed_tools is not None


def ends_run(agent: AgentDefinition[Any, Any], tool: str) -> bool:
    """Whether the output of a tool ends the run."""
    known = agent.tools.get(tool)
    return (known is not None and known.terminal) or tool in agent.rules.terminal


def agent_within(agent: AgentDefinition[Deps, Out], limits: Limits) -> "AgentDefinition[Deps, Out]":
    """Returns the same agent within narrower limits; its hash stays the same."""
    _ = hash_of(agent)  # cached before the copy, which takes it over with all other attributes
    narrowed = copy(agent)
    narrowed._given = limits if agent._given is None else limits.within(agent._given)
    narrowed.limits = agent.limits.within(limits)
    narrowed._has_rules = agent._has_rules or narrowed.limits.max_tool_calls is not None
    return narrowed


def agent_with_options(
    agent: AgentDefinition[Deps, Any], options: RunOptions, catalog: Catalog, first_agent: str = ""
) -> "AgentDefinition[Deps, Any]":
    """Returns the same agent as it works on a run with `options`; its hash stays the same.

    `catalog` has what the options name. `first_agent` is the agent with which the run began, by
    default this one; for another, only the options of the whole run hold. Raises
    `UnknownOption` for a name that is not known, and `ConfigurationError` for options that
    cannot work together, or not with this agent.
    """
    _ = hash_of(agent)  # cached before the copy, which takes it over with all other attributes
    first = first_agent or agent.name
    run: AgentDefinition[Deps, Any] = copy(agent)
    run._options = (options, catalog, first)
    if agent.name != first:
        options = options.after_handoff
    run._apply_model(options, catalog)
    run._apply_tools(options, catalog, is_first=agent.name == first)
    if options.instructions is not None:
        run.instructions = options.instructions
    run.extra_instructions = options.extra_instructions
    if options.output is not None:
        run.output = catalog.output(options.output)
        run.stream_fields = ()
        run.output_validators = ()  # they are written for the type of the agent
    run._require_known_tools()
    return run


def handed_to(agent: AgentDefinition[Any, Any], name: str) -> "AgentDefinition[Any, Any]":
    """Returns the agent that takes over the run, within what this one was given for it."""
    other = agent.handoffs[name]
    if agent._given is not None:
        other = agent_within(other, agent._given)
    return other if agent._options is None else agent_with_options(other, *agent._options)


def hash_of(agent: AgentDefinition[Any, Any]) -> str:
    """Returns 16 hexadecimal digits that identify the definition of an agent.

    Functions and sources of tools count by their names: a change inside a tool, or of the
    tools that a source offers, does not change it.
    """
    if not agent._hash:
        agent._hash = _hash_of(agent)
    return agent._hash


def _hash_of(agent: AgentDefinition[Any, Any]) -> str:
    instructions = agent.instructions
    described: dict[str, object] = {
        "model": agent.model.name,
        "name": agent.name,
        "instructions": (
            instructions if isinstance(instructions, str) else _name(instructions.function)
        ),
        "tools": [_described(tool) for tool in agent.tools],
        "output": agent.output.schema if agent.output is not None else None,
        "stream_fields": agent.stream_fields,
        # Headers may hold secrets, and do not change what the agent does.
        "settings": replace(agent.settings, extra_headers={}),
        "limits": agent.limits,
        "thread_limits": agent.thread_limits,
        "rules": agent.rules,
        "hooks": {point: [hook.name for hook in agent.hooks.at(point)] for point in POINTS},
        "early_tools": agent.early_tools,
        "action_timeout": agent.action_timeout,
    }
    if agent._output_mode is not None:
        described["output_mode"] = agent._output_mode
    if agent.output_validators:
        described["output_validators"] = [one.subject for one in agent.output_validators]
    if agent.budget is not None:
        described["context"] = agent.budget.described
    if agent.hosted:
        described["hosted"] = [described_tool(tool) for tool in agent.hosted]
    if agent.sources:
        described["sources"] = [(source.name, source.is_local) for source in agent.sources]
    if agent.blocks:
        described["blocks"] = agent.blocks
    if agent.sleep_agent is not None:
        described["sleep_agent"] = agent.sleep_agent.described
    encoded = msgspec.json.encode(described, enc_hook=_name, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]


def require_local_tools(agent: AgentDefinition[Any, Any]) -> None:
    """Raises `ConfigurationError` for a tool that must be answered or approved from outside."""
    for tool in agent.tools:
        if not tool.is_local:
            raise ConfigurationError(
                f"The tool {tool.name} is answered or approved from outside, which needs a "
                "thread: treadle.open(agents=[agent]), then thread.send(…)."
            )
    for hosted in agent.hosted:
        if isinstance(hosted, RemoteMCP) and hosted.needs_approval:
            raise ConfigurationError(
                f"Calls of the MCP server {hosted.name} are approved from outside, which needs a "
                "thread: treadle.open(agents=[agent]), then thread.send(…); or declare it with "
                "needs_approval=False."
            )
    for source in agent.sources:
        if not source.is_local:
            raise ConfigurationError(
                f"Tools of {source.name} are answered or approved from outside, which needs "
                "a thread: treadle.open(agents=[agent]), then thread.send(…)."
            )


def require_own_blocks(agent: AgentDefinition[Any, Any]) -> None:
    """Raises `ConfigurationError` for a memory block that threads share."""
    for block in agent.blocks:
        if block.shared:
            raise ConfigurationError(
                f"The memory block {block.label} is shared, which needs a thread: "
                "treadle.open(agents=[agent]), then thread.send(…)."
            )


def _require_types(
    name: object,
    description: object,
    settings: object,
    limits: object,
    thread_limits: object,
    rules: object,
    hooks: object,
    retry: object,
) -> None:
    """Raises `ConfigurationError`, which names the parameter, for a value of another type."""
    require_type("name", name, str, 'name="assistant"')
    require_type("description", description, str, 'description="…"')
    for parameter, value, kind, example in (
        ("settings", settings, ModelSettings, "settings=ModelSettings(temperature=0)"),
        ("limits", limits, Limits, "limits=Limits(max_steps=10)"),
        ("thread_limits", thread_limits, Limits, "thread_limits=Limits(max_cost=1)"),
        ("rules", rules, ToolRules, "rules=ToolRules(…)"),
        ("retry", retry, RetryPolicy, "retry=RetryPolicy(…)"),
    ):
        if value is not None:
            require_type(parameter, value, kind, example)
    example = "hooks=Hooks(before_tool=f)"
    listed: tuple[object, ...] = (
        (cast("object", hooks),)
        if isinstance(hooks, Hooks)
        else require_list("hooks", () if hooks is None else hooks, example)
    )
    for one in listed:
        require_type("hooks", one, Hooks, example)


def _instructions_of(value: Instructions[Any]) -> str | UserFunction[str]:
    if isinstance(value, str):
        return value
    if not callable(cast("object", value)):
        raise ConfigurationError(
            f"instructions cannot be {shown(value)}; pass a text, or a function that returns one."
        )
    return user_function(value, "instructions", subject=f"The instructions {name_of(value)}")


def _price_of(model: str, *limits: Limits) -> Price | None:
    given = next((one.price for one in limits if one.price is not None), None)
    tables = [one.prices for one in limits if one.prices is not None]
    known = (price_of(model, table) for table in (*tables, PRICES))
    return given or next((price for price in known if price is not None), None)


def _workers(tools: Toolset) -> Iterator[AgentDefinition[Any, Any]]:
    """Yields the agents that run as tools."""
    for tool in tools:
        worker: object = tool.worker
        if isinstance(worker, AgentDefinition):
            yield cast("AgentDefinition[Any, Any]", worker)


def _sleeper(
    given: "SleepAgent | AgentDefinition[Any, Any] | None", context: ContextStrategy | None
) -> SleepAgent | None:
    sleeper = SleepAgent(given) if isinstance(given, AgentDefinition) else given
    if sleeper is None:
        return None
    if not isinstance(sleeper.agent, AgentDefinition):
        raise ConfigurationError(
            f"SleepAgent.agent is {sleeper.agent!r:.100}, which is not an agent."
        )
    if sleeper.reads == "left" and (context is None or isinstance(context, NoCompaction)):
        raise ConfigurationError(
            "The sleep agent reads what leaves the window, but nothing ever leaves it: give the "
            'agent context=SlidingWindow() or Summarize(), or SleepAgent(…, reads="new").'
        )
    return sleeper


def _described(tool: Tool[..., object]) -> tuple[object, ...]:
    approval = tool.needs_approval
    return (
        tool.schema,
        tool.timeout,
        tool.retries,
        tool.idempotent,
        tool.external,
        approval if isinstance(approval, bool) else _name(approval.function),
        tool.serial,
        tool.terminal,
        tool.on_error,
        tool.to_user,
        tool.stream_fields,
    )


def _streamed_of(output: OutputType[Out] | None, fields: Iterable[str]) -> tuple[str, ...]:
    if output is not None:
        owner = f"the output {output.schema.name}"
        return require_streamable(fields, output.schema.schema, owner, ConfigurationError)
    if tuple(fields):
        raise ConfigurationError(
            "stream_fields of an agent are fields of its structured output: give it output=…; for "
            "the arguments of a tool, use @tool(stream_fields=[…])."
        )
    return ()


def _name(value: object) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)
