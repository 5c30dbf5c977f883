"""What options of a run may name: the models, tools and output types that a process knows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from treadle.domain.options import ExternalTool
from treadle.domain.schema import OutputSchema
from treadle.errors import ConfigurationError, UnknownOption
from treadle.models.base import Model
from treadle.models.resolve import resolve_model
from treadle.tools.external import external_tool
from treadle.tools.function import Tool, as_tool
from treadle.tools.output_type import OutputType
from treadle.tools.schema_output import SchemaOutput

TEXT = "str"
"""The name of the output type that is plain text."""


class Catalog:
    """Models, tools and output types by name.

    An object that a caller gives for one run becomes known by its name, as an agent does that is
    given to a thread: the events of the run contain the name, and a process that resumes the run
    must know it. A name stands for one object, so that no run gets the tool of another.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        tools: Iterable[Tool[..., object] | Callable[..., object]] = (),
        outputs: Iterable[type[Any]] = (),
    ) -> None:
        self._models = dict(models or {})
        self._tools: dict[str, Tool[..., object]] = {}
        self._outputs: dict[str, tuple[object, OutputType[object]]] = {}
        for one in tools:
            self.add_tool(one)
        for one in outputs:
            self.add_output(one)

    def add_model(self, model: Model) -> str:
        """Makes a model known; returns its name, which no model string can be."""
        known = next((name for name, one in self._models.items() if one is model), None)
        if known is not None:
            return known
        name = f"{model.provider}/{model.name}"
        if name in self._models:
            raise _taken("model", name, 'treadle.open(models={"name": model})')
        self._models[name] = model
        return name

    def add_tool(self, given: Tool[..., object] | Callable[..., object]) -> str:
        """Makes a tool known; returns its name."""
        tool = as_tool(given)
        known = self._tools.setdefault(tool.name, tool)
        if known is not tool and known.function != tool.function:
            raise _taken("tool", tool.name, "tool(name=…)")
        return tool.name

    def add_output(self, given: type[Any]) -> str:
        """Makes an output type known; returns its name."""
        if given is str:
            return TEXT
        made = OutputType[object](given)
        name = made.schema.name
        known, _ = self._outputs.setdefault(name, (given, made))
        if known != given or name == TEXT:
            raise _taken("output type", name, "its class")
        return name

    def model(self, name: str) -> Model:
        """Returns the model of that name, or of that model string.

        Raises `UnknownOption`, and `MissingKey` for a model string without its key.
        """
        if name in self._models:
            return self._models[name]
        if ":" not in name and name != "demo":
            raise _unknown("model", name, self._models)
        return resolve_model(name)

    def tool(self, declared: ExternalTool | str) -> Tool[..., object]:
        """Returns a tool that options contain or name; raises `UnknownOption`."""
        if isinstance(declared, ExternalTool):
            return external_tool(declared)
        if declared not in self._tools:
            raise _unknown("tool", declared, self._tools)
        return self._tools[declared]

    def output(self, output: OutputSchema | str) -> OutputType[object] | None:
        """Returns the output type that options contain or name; None is plain text.

        Raises `UnknownOption`.
        """
        if isinstance(output, OutputSchema):
            return SchemaOutput(output)
        if output == TEXT:
            return None
        if output not in self._outputs:
            raise _unknown("output type", output, self._outputs)
        return self._outputs[output][1]


def _taken(kind: str, name: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"Another {kind} is known by the name {name!r}, and a run that is resumed finds it by that "
        f"name; define it once, or give it another name with {where}."
    )


def _unknown(kind: str, name: str, known: Iterable[str]) -> UnknownOption:
    parameter = {"model": "models={…}", "tool": "tools=[…]"}.get(kind, "outputs=[…]")
    return UnknownOption(
        f"The {kind} {name[:100]!r} of the run is not known here; this process knows: "
        f"{', '.join(known) or 'none'}. Make it known with "
        f"treadle.open({parameter})."
    )
