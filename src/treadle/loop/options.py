"""From the keyword arguments of a call to the options of its run, checked."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec
from typing_extensions import TypedDict

from treadle.domain.arguments import is_mapping, require_list, require_text, require_type, shown
from treadle.domain.limits import Limits
from treadle.domain.options import AllowedTools, ExternalTool, RunOptions
from treadle.domain.schema import OutputSchema
from treadle.domain.settings import ModelSettings, NamedTool, ToolChoice
from treadle.domain.urls import masked_url
from treadle.errors import ConfigurationError, DuplicateTool, InvalidInput
from treadle.loop.catalog import Catalog
from treadle.models.base import Model
from treadle.tools.function import TOOL_NAME, Tool
from treadle.tools.json_schema import require_schema
from treadle.tools.schema_output import require_output_schema

AddedTool = Tool[..., object] | Callable[..., object] | ExternalTool | str
MAX_BYTES = 1_000_000
"""The most bytes of the options of one run, as JSON."""


class OptionArguments(TypedDict, total=False):
    """The options of one run, as keyword arguments; each left out is that of the agent.

    - `model`: a model, a model string, or the name of a model that the runtime knows.
    - `settings`: the fields that are set replace those of the agent.
    - `instructions`: a text that replaces the instructions of the agent.
    - `extra_instructions`: a text that follows the instructions.
    - `tools`: tools and functions that are added; an `ExternalTool` is answered by the caller; a
      text is the name of a tool that the runtime knows.
    - `tool_choice`: as in `ModelSettings`, or an `AllowedTools`.
    - `output`: the type of the result; a JSON Schema, for a result of plain JSON; or the name of a
      type that the runtime knows.
    - `limits`: those that are set replace those of the agent.
    - `metadata`: any JSON object, which is kept with the run.

    `model`, `settings`, `instructions` and `tool_choice` hold while the agent works with which the
    run begins; the others hold after a handoff, too.
    """

    model: Model | str
    settings: ModelSettings
    instructions: str
    extra_instructions: str
    tools: Iterable[AddedTool]
    tool_choice: ToolChoice | AllowedTools
    limits: Limits
    metadata: Mapping[str, object]


Output = type[Any] | Mapping[str, object] | OutputSchema | str


def make_options(
    catalog: Catalog,
    arguments: OptionArguments,
    output: Output | None = None,
    *,
    function: str,
    is_kept: bool,
) -> RunOptions | None:
    """Returns the options that a call of `function` was given, or None if it was given none.

    The objects among them become known to `catalog`. With `is_kept`, the options will be stored, so
    that they must not contain keys. Raises `InvalidInput` for a value of another form,
    `ConfigurationError` for what cannot work in any run, and `TypeError` for an unknown keyword.
    """
    if not arguments and output is None:
        return None
    _require_keywords(function, arguments)
    settings = arguments.get("settings")
    if settings is not None:
        require_type("settings", settings, ModelSettings, "settings=ModelSettings(temperature=0)")
    choice = arguments.get("tool_choice")
    if settings is not None and settings.tool_choice is not None:
        choice = settings.tool_choice if choice is None else choice
        settings = msgspec.structs.replace(settings, tool_choice=None)
    limits = arguments.get("limits")
    if limits is not None:
        require_type("limits", limits, Limits, "limits=Limits(max_steps=10)")
    instructions = arguments.get("instructions")
    options = RunOptions(
        model=_model_of(catalog, arguments.get("model"), is_kept=is_kept),
        settings=None if settings == ModelSettings() else settings,
        instructions=None if instructions is None else require_text("instructions", instructions),
        extra_instructions=require_text(
            "extra_instructions", arguments.get("extra_instructions") or ""
        ),
        tools=_tools_of(catalog, arguments.get("tools")),
        tool_choice=_choice_of(choice),
        output=_output_of(catalog, output),
        limits=None if limits == Limits() else limits,
        metadata=_metadata_of(arguments.get("metadata")),
    )
    if is_kept and settings is not None and settings.extra_headers:
        raise InvalidInput(
            "settings.extra_headers of one run would be stored with it, and headers may contain "
            "keys; set them on the agent or on the model."
        )
    return None if options == RunOptions() else _stored(options)


def _require_keywords(function: str, arguments: Mapping[str, object]) -> None:
    """Raises `TypeError` as Python does, for a keyword that no option has."""
    known = OptionArguments.__annotations__
    for name in arguments:
        if name not in known:
            from difflib import get_close_matches  # noqa: PLC0415 - for a mistake alone

            close = get_close_matches(name, [*known, "output"], 1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def _model_of(catalog: Catalog, model: object, *, is_kept: bool) -> str:
    if model is None:
        return ""
    if not isinstance(model, str):
        if not callable(getattr(model, "stream", None)):
            raise InvalidInput(f"model must be a model or a model string, not {shown(model)}.")
        return catalog.add_model(cast("Model", model))
    name = require_text("model", model).strip()
    if not name:
        raise InvalidInput('model is empty; pass a model string such as "openai:gpt-5".')
    url = name.partition("@")[2]
    if is_kept and masked_url(url) != url:
        raise InvalidInput(
            "The URL in model contains a user, a password or a query, and would be stored with the "
            'run; make the model known by a name with treadle.open(models={"name": model}).'
        )
    return name


def _tools_of(catalog: Catalog, given: object) -> tuple[ExternalTool | str, ...]:
    if given is None:
        return ()
    tools: list[ExternalTool | str] = []
    for one in require_list("tools", given, "tools=[f]"):
        if isinstance(one, ExternalTool):
            tools.append(_declared(one))
        elif isinstance(one, str):
            tools.append(require_text("The name of a tool", one))
        elif callable(one):
            tools.append(catalog.add_tool(one))
        else:
            raise InvalidInput(
                f"tools has {shown(one)}; pass functions, tools, ExternalTool(…) or names."
            )
    names = [one if isinstance(one, str) else one.name for one in tools]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise DuplicateTool(f"tools has two tools called {double[:100]!r}; rename one.")
    return tuple(tools)


def _declared(tool: ExternalTool) -> ExternalTool:
    name = require_text("ExternalTool.name", tool.name)
    if not TOOL_NAME.fullmatch(name):
        raise InvalidInput(
            f"ExternalTool.name is {shown(name)}; use at most 64 letters, digits, _ and -."
        )
    require_text("ExternalTool.description", tool.description)
    schema = require_schema(f"The parameters of the tool {name}", tool.parameters)
    if not is_mapping(schema) or schema.get("type", "object") != "object":
        raise InvalidInput(f"The parameters of the tool {name} must be of the type object.")
    return tool


def _choice_of(choice: object) -> ToolChoice | AllowedTools | None:
    if choice is None or isinstance(choice, AllowedTools):
        return choice
    try:
        checked = ModelSettings(tool_choice=cast("ToolChoice", choice)).tool_choice
    except (ConfigurationError, TypeError) as error:
        raise InvalidInput(
            f"tool_choice is {shown(choice)}; use auto, none, required, a NamedTool or an "
            "AllowedTools."
        ) from error
    if isinstance(checked, NamedTool):
        require_text("NamedTool.name", checked.name)
    return checked


def _output_of(catalog: Catalog, output: Output | None) -> OutputSchema | str | None:
    match output:
        case None:
            return None
        case str():
            return require_text("output", output)
        case OutputSchema():
            checked = require_output_schema(output.schema, require_text("output", output.name))
            return msgspec.structs.replace(checked, strict=checked.strict and output.strict)
        case Mapping():
            return require_output_schema(output)
        case _:
            return catalog.add_output(output)


def _metadata_of(metadata: object) -> Mapping[str, object]:
    if metadata is None:
        return {}
    if not is_mapping(metadata):
        raise InvalidInput(f"metadata must be a JSON object, not {shown(metadata)}.")
    return metadata


def _stored(options: RunOptions) -> RunOptions:
    """Returns the options as they will be read again; raises `InvalidInput` if they cannot be."""
    try:
        encoded = msgspec.json.encode(options)
        if len(encoded) > MAX_BYTES:
            raise InvalidInput(
                f"The options of the run have {len(encoded)} bytes as JSON; at most {MAX_BYTES} "
                "are kept with a run."
            )
        return msgspec.json.decode(encoded, type=RunOptions)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise InvalidInput(f"The options of the run are not JSON: {error}.") from error
