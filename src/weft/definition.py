"""What an agent is: its model, instructions, tools, output and limits; data without behaviour."""

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Generic

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import TypeVar

from weft.errors import ConfigurationError
from weft.models.base import Model, ModelSettings, NamedTool
from weft.models.resolve import resolve_model
from weft.models.retry import RetryPolicy
from weft.tools.function import Tool
from weft.tools.output_type import OutputType
from weft.tools.source import ToolSource, ToolSources
from weft.tools.toolset import Toolset
from weft.usage import Price

Deps = TypeVar("Deps", default=None)
Out = TypeVar("Out", default=str)

AnyTool = Tool[..., object] | Callable[..., object]


class Limits(Struct, frozen=True, kw_only=True):
    """Where a run ends although the model would go on; None is no limit.

    `max_steps` counts responses. `max_tokens` (input and output of all steps) and `max_cost` (in
    the currency of `price`, which it needs) are looked at after each step; `max_seconds` ends a
    run at once.
    """

    max_steps: int = 32
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigurationError("Limits.max_steps must be at least 1.")
        for name in ("max_tokens", "max_cost", "max_seconds"):
            value: float | None = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"Limits.{name} must be above 0, or None for no limit.")
        if self.max_cost is not None and self.price is None:
            raise ConfigurationError(
                "Limits.max_cost needs a price: Limits(max_cost=…, price=Price(input=…, output=…))."
            )


class AgentDefinition(Generic[Deps, Out]):
    """An agent as the loop sees it.

    - `model`: a model, or a string such as `"openai:gpt-5"` (`weft.models.resolve`).
    - `instructions`: a text, or a function of the run's `deps` that returns one before each step.
    - `tools`: tools; plain functions, which become tools with the default options; sources of
      tools such as `weft.mcp.MCPTools`, which are asked for theirs before each step.
    - `output`: the type of the result; anything but `str` asks the model for JSON of that type. An
      invalid one is sent back for correction at most `max_corrections` times.
    - `settings`: how the model shall answer; a forced tool choice applies to the first step only.
    - `early_tools`: start a tool as soon as its own arguments are complete.
    - `action_timeout`: seconds a run waits for outputs and approvals from outside before it
      expires; None is for ever.
    - `max_parallel_tools`: how many tools of one step run at the same time.

    Raises `ConfigurationError` for what cannot work.
    """

    def __init__(
        self,
        model: Model | str,
        *,
        name: str = "agent",
        instructions: str | Callable[[Deps], str] = "",
        tools: Iterable[AnyTool | ToolSource] = (),
        output: type[Out] | None = None,
        settings: ModelSettings | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        early_tools: bool = True,
        action_timeout: float | None = None,
        max_parallel_tools: int = 16,
        max_corrections: int = 2,
    ) -> None:
        if max_parallel_tools < 1:
            raise ConfigurationError("max_parallel_tools must be at least 1.")
        if action_timeout is not None and not action_timeout > 0:
            raise ConfigurationError("action_timeout must be above 0, or None to wait for ever.")
        if max_corrections < 0:
            raise ConfigurationError("max_corrections cannot be negative.")
        self.model = resolve_model(model)
        self.name = name
        self.instructions = instructions
        given = tuple(tools)
        self.tools = Toolset(tool for tool in given if not isinstance(tool, ToolSource))
        self.sources = ToolSources(
            self.tools, [source for source in given if isinstance(source, ToolSource)]
        )
        self.output = None if output is None or output is str else OutputType(output)
        self.settings = settings or ModelSettings()
        self.limits = limits or Limits()
        self.retry = retry or RetryPolicy()
        self.early_tools = early_tools
        self.action_timeout = action_timeout
        self.max_parallel_tools = max_parallel_tools
        self.max_corrections = max_corrections
        self._require_known_choice()

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that tell this definition from others.

        A function counts by its name, and so does a source of tools: a change inside a tool, or
        of the tools that a source has, does not show.
        """
        instructions = self.instructions
        described: dict[str, object] = {
            "model": self.model.name,
            "name": self.name,
            "instructions": instructions if isinstance(instructions, str) else _name(instructions),
            "tools": [_described(tool) for tool in self.tools],
            "output": self.output.schema if self.output is not None else None,
            # Headers may hold secrets, and change nothing of what the agent does.
            "settings": replace(self.settings, extra_headers={}),
            "limits": self.limits,
            "early_tools": self.early_tools,
            "action_timeout": self.action_timeout,
        }
        if self.sources:
            described["sources"] = [(source.name, source.is_local) for source in self.sources]
        encoded = msgspec.json.encode(described, enc_hook=_name, order="deterministic")
        return hashlib.sha256(encoded).hexdigest()[:16]

    def require_local_tools(self) -> None:
        """Raises `ConfigurationError` for a tool that must be answered or approved from outside."""
        for tool in self.tools:
            if not tool.is_local:
                raise ConfigurationError(
                    f"The tool {tool.name} is answered or approved from outside, which needs a "
                    "thread: weft.open(agents=[agent]), then thread.send(…)."
                )
        for source in self.sources:
            if not source.is_local:
                raise ConfigurationError(
                    f"Tools of {source.name} are answered or approved from outside, which needs "
                    "a thread: weft.open(agents=[agent]), then thread.send(…)."
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name!r}, name={self.name!r})"

    def _require_known_choice(self) -> None:
        if self.sources:
            return  # what their tools are called is not known yet
        choice = self.settings.tool_choice
        if isinstance(choice, NamedTool) and choice.name not in self.tools.names:
            known = ", ".join(self.tools.names) or "none"
            raise ConfigurationError(
                f"The tool choice {choice.name!r} is no tool of this agent; it has: {known}."
            )
        if choice == "required" and not self.tools.names:
            raise ConfigurationError('tool_choice="required" needs at least one tool.')


def _described(tool: Tool[..., object]) -> tuple[object, ...]:
    approval = tool.needs_approval
    return (
        tool.schema,
        tool.timeout,
        tool.retries,
        tool.idempotent,
        tool.external,
        approval if isinstance(approval, bool) else _name(approval),
        tool.serial,
        tool.terminal,
        tool.on_error,
    )


def _name(value: object) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)
