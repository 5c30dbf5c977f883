"""Reads a function's signature and docstring as a JSON Schema and a validator."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    TypeGuard,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from treadle.domain.schema import JsonSchema
from treadle.errors import InvalidTool
from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.context import RunContext
from treadle.tools.nulls import without_nulls
from treadle.tools.pydantic_schema import quiet_json_schema, without_titles
from treadle.tools.strict import strict_schema

if TYPE_CHECKING:
    from docstring_parser import Docstring

_Parameter = inspect.Parameter


class Signature:
    """The parameters of a tool's function.

    - `description`: the docstring without its sections.
    - `parameters`: the JSON Schema of the arguments, in the strict subset if `strict`.
    - `plain`: that schema before it was made strict.
    - `context_parameter`: the name of the parameter that takes the `RunContext`, if there is one.
    - `deps`: the type of deps that it needs, as text; "" if it can do without.

    Raises `InvalidTool` for a parameter that has no JSON form.
    """

    def __init__(self, function: Callable[..., object], name: str, strict: bool | None) -> None:
        from docstring_parser import parse  # noqa: PLC0415 - imported with the first tool

        self._name = name
        hints = _hints(function, name)
        docstring = parse(inspect.getdoc(_written(function)) or "")
        self.description = _description(docstring)
        self.context_parameter: str | None = None
        self.deps = ""
        documented = {param.arg_name: param.description for param in docstring.params}
        fields: dict[str, Any] = {}
        self._own_defaults = set[str]()
        for parameter in _open_parameters(function):
            self._require_nameable(parameter)
            hint = hints.get(parameter.name)
            if _is_context(hint):
                self._take_context(parameter.name)
                self.deps = _deps_needed(hint)
                continue
            fields[parameter.name] = self._field(parameter, hint, documented)
            if not (parameter.default is _Parameter.empty or _is_field(parameter.default)):
                self._own_defaults.add(parameter.name)
        self._aliases = {f"field_{index}": key for index, key in enumerate(fields)}
        self._model = self._create_model(fields)
        self.takes_nothing = not fields
        self.plain = self._plain_schema()
        self.parameters, self.strict = self._held_to(strict)

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the keyword arguments; raises pydantic's `ValidationError`.

        Omitted parameters are left out if the function has a default for them.
        """
        # Validated as JSON: in JSON mode pydantic accepts dates as text and tuples as lists, even
        # for models that are strict about Python types.
        encoded = msgspec.json.encode(arguments)
        if self.strict and b"null" in encoded:
            encoded = msgspec.json.encode(without_nulls(arguments, self.plain))
        validated = self._model.model_validate_json(encoded)
        return {
            name: getattr(validated, key)
            for key, name in self._aliases.items()
            if key in validated.model_fields_set or name not in self._own_defaults
        }

    def _require_nameable(self, parameter: _Parameter) -> None:
        if parameter.kind in {_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD}:
            raise self._invalid(parameter.name, "takes any number of arguments; name each one")
        if parameter.kind is _Parameter.POSITIONAL_ONLY:
            raise self._invalid(parameter.name, "is positional-only; models pass arguments by name")

    def _take_context(self, parameter: str) -> None:
        if self.context_parameter is not None:
            raise self._invalid(parameter, "is a second RunContext; one is enough")
        self.context_parameter = parameter

    def _field(
        self, parameter: _Parameter, hint: Any, documented: Mapping[str, str | None]
    ) -> "tuple[Any, pydantic.FieldInfo]":
        name = parameter.name
        if hint is None and name in {"self", "cls"}:
            raise self._invalid(name, "belongs to a method; use a bound one, as in tool(shop.buy)")
        if hint is None:
            raise self._invalid(name, "has no type; annotate it")
        if not hasattr(hint, "__module__"):  # `Annotated` would fail on such a value below
            raise self._invalid(name, f"has {hint!r:.100} for a type; annotate it with a type")
        default = ... if parameter.default is _Parameter.empty else parameter.default
        field: pydantic.FieldInfo = default if _is_field(default) else pydantic.Field(default)
        description = documented.get(name)
        if description is None or field.description or _has_description(hint):
            return hint, field
        return Annotated[hint, pydantic.Field(description=description)], field

    def _create_model(self, fields: Mapping[str, Any]) -> "type[pydantic.BaseModel]":
        # Fields get generated names: a parameter may be called like a method of BaseModel.
        aliased: dict[str, Any] = {
            key: (Annotated[fields[name][0], fields[name][1]], _aliased(fields[name][1], name))
            for key, name in self._aliases.items()
        }
        config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        try:
            return pydantic.create_model(f"{self._name} arguments", __config__=config, **aliased)
        except Exception as error:  # pydantic and user code raise many kinds
            raise self._untypable(fields) from error

    def _plain_schema(self) -> JsonSchema:
        try:
            schema = without_titles(
                self._model.model_json_schema(schema_generator=quiet_json_schema())
            )
        except Exception as error:  # as in `_create_model`
            fields = {
                self._aliases[key]: (field.annotation, field)
                for key, field in self._model.model_fields.items()
            }
            raise self._untypable(fields) from error
        return {"properties": dict[str, object](), **schema}

    def _held_to(self, strict: bool | None) -> tuple[JsonSchema, bool]:
        found = None if strict is False else strict_schema(self.plain)
        if found is None and strict:
            raise InvalidTool(
                f"The tool {self._name} cannot be strict: one of its parameters has no fixed "
                "fields (a dict, for example). Give it a typed model or leave out strict=True."
            )
        return (self.plain, False) if found is None else (found, True)

    def _untypable(self, fields: Mapping[str, Any]) -> InvalidTool:
        for name, (hint, field) in fields.items():
            try:
                probe: Any = Annotated[hint, field]
                pydantic.create_model("probe", x=(probe, ...)).model_json_schema()
            except Exception:  # noqa: BLE001 - as in `_create_model`
                return self._invalid(
                    name,
                    f"has the type {_type_name(hint)}, which cannot be represented as JSON; use "
                    "str, int, a list, a pydantic model, …",
                )
        return InvalidTool(
            f"The tool {self._name} has a parameter that cannot be represented as JSON."
        )

    def _invalid(self, parameter: str, problem: str) -> InvalidTool:
        return InvalidTool(f"The parameter {parameter!r} of the tool {self._name} {problem}.")


def _aliased(field: "pydantic.FieldInfo", name: str) -> Any:
    if field.is_required():
        return pydantic.Field(alias=name)
    if field.default_factory is not None:
        return pydantic.Field(default_factory=cast("Any", field.default_factory), alias=name)
    return pydantic.Field(field.default, alias=name)


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(_written(function), include_extras=True)
    except Exception as error:  # an annotation is user code and may raise anything
        problem = " ".join(str(error).split())
        raise InvalidTool(
            f"The tool {name} has an annotation that cannot be resolved: {problem}. Define the "
            "type at module level, or import it outside `if TYPE_CHECKING`."
        ) from error


def _open_parameters(function: Callable[..., object]) -> list[_Parameter]:
    """The parameters that a caller fills; without those that a partial has bound by name."""
    bound = _bound_names(function)
    parameters = inspect.signature(function).parameters
    return [parameter for name, parameter in parameters.items() if name not in bound]


def _bound_names(function: Callable[..., object]) -> frozenset[str]:
    if isinstance(function, functools.partial):
        return _bound_names(function.func) | function.keywords.keys()
    return frozenset()


def _written(function: Callable[..., object]) -> Callable[..., object]:
    """The function in the source, below partials, wrappers and callable objects."""
    if isinstance(function, functools.partial):
        return _written(function.func)
    return inspect.unwrap(function if inspect.isroutine(function) else type(function).__call__)


def _description(docstring: "Docstring") -> str:
    parts = (docstring.short_description, docstring.long_description)
    return "\n\n".join(part for part in parts if part)


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint is RunContext or get_origin(hint) is RunContext


def _deps_needed(hint: Any) -> str:
    """Returns the type of deps that a context must have, as text; "" if they may be None."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    types = get_args(hint)
    if not types or types[0] in {None, type(None), Any, object} or isinstance(types[0], TypeVar):
        return ""
    return "" if type(None) in get_args(types[0]) else _type_name(types[0])


def _is_field(default: object) -> TypeGuard["pydantic.FieldInfo"]:
    return isinstance(default, pydantic.FieldInfo)


def _has_description(hint: Any) -> bool:
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(entry, pydantic.FieldInfo) and entry.description for entry in metadata)


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return f"{_type_name(get_args(hint)[0])} with constraints"
    return getattr(hint, "__name__", None) or str(hint)
