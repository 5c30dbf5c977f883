"""Options of one run: what its message asks to be different from the definition of the agent."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.arguments import is_list
from treadle.domain.limits import Limits
from treadle.domain.schema import JsonSchema, OutputSchema
from treadle.domain.settings import ModelSettings, ToolChoice
from treadle.errors import ConfigurationError

_NOTHING: JsonSchema = {"type": "object", "properties": {}}


class AllowedTools(Struct, frozen=True, omit_defaults=True, tag="allowed"):
    """A tool choice: the model may call the tools of these names only, in the whole run.

    With `required`, its first response must call one of them. Calls of other tools are answered
    with an error. Raises `ConfigurationError` without a name, and for a text in place of a list.
    """

    names: tuple[str, ...]
    required: bool = False

    def __post_init__(self) -> None:
        names: object = self.names
        if not is_list(names) or not all(isinstance(one, str) for one in names):
            raise _InvalidOption(
                'AllowedTools takes a list of the names of tools: AllowedTools(("lookup",)).'
            )
        if not self.names:
            raise _InvalidOption('AllowedTools needs a name; tool_choice="none" allows no tool.')
        msgspec.structs.force_setattr(self, "names", tuple(self.names))


class ExternalTool(Struct, frozen=True, omit_defaults=True):
    """A tool that the caller answers with `Thread.submit_tool_output`; it needs no function.

    - `name`: at most 64 letters, digits, `_` and `-`.
    - `description`: what the model reads of it.
    - `parameters`: the JSON Schema of the arguments, an object; by default it takes none.
    - `strict`: asks the provider to enforce the schema, which then must be in its strict subset.
    """

    name: str
    description: str = ""
    parameters: JsonSchema = msgspec.field(default_factory=lambda: dict(_NOTHING))
    strict: bool = False


class RunOptions(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The options of one run, as its events contain them.

    - `model`: a model string, or the name of a model that the runtime knows; "" is the agent's.
    - `settings`: the fields that are set replace those of the agent.
    - `instructions`: replace those of the agent; `extra_instructions` follow them.
    - `tools`: are added; a text is the name of a tool that the runtime knows.
    - `tool_choice`: replaces that of the agent's settings.
    - `output`: replaces the agent's output type: a schema, or the name of a type that the runtime
      knows; "str" is plain text.
    - `limits`: those that are set replace those of the agent.
    - `metadata`: any JSON object; treadle does not interpret it.

    `model`, `settings`, `instructions` and `tool_choice` replace a part of the agent and hold while
    the agent works with which the run began. The others hold for the whole run.
    """

    model: str = ""
    settings: ModelSettings | None = None
    instructions: str | None = None
    extra_instructions: str = ""
    tools: tuple[ExternalTool | str, ...] = ()
    tool_choice: ToolChoice | AllowedTools | None = None
    output: OutputSchema | str | None = None
    limits: Limits | None = None
    metadata: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    @property
    def after_handoff(self) -> "RunOptions":
        """Those that hold for an agent to which the run was handed over."""
        return replace(self, model="", settings=None, instructions=None, tool_choice=None)

    @property
    def of_result(self) -> "RunOptions":
        """Those by which the result of the run is read."""
        return RunOptions(tools=self.tools, output=self.output)


class _InvalidOption(ConfigurationError, ValueError):
    """A `ValueError` as well, so that a stored event with such an option counts as damaged."""
