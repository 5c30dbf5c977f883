"""What callers over the network may change of an agent for one run."""

from collections.abc import Collection, Iterable, Mapping
from typing import cast

from treadle.domain.arguments import is_list, is_mapping, shown
from treadle.domain.limits import Limits
from treadle.domain.options import AllowedTools, ExternalTool, RunOptions
from treadle.domain.schema import OutputSchema
from treadle.domain.settings import ModelSettings
from treadle.errors import ConfigurationError, OptionNotAllowed

Allowed = bool | Iterable[str]
Overridable = Mapping[str, bool | frozenset[str]]
"""The options that may be given, and which of their values: all that are safe, or some by name."""

_FIELDS = RunOptions.__struct_fields__
_LISTED = {"model", "settings", "tools"}
_UNSAFE_SETTINGS = {"extra_body", "extra_headers", "tool_choice"}


def overridable_of(given: Iterable[str] | Mapping[str, Allowed]) -> Overridable:
    """Returns the parameter `overridable` of an agent, checked; raises `ConfigurationError`."""
    if isinstance(given, str) or not (is_mapping(given) or is_list(given)):
        raise ConfigurationError(
            f"overridable is a list of options, not {shown(given)}; write "
            'overridable=["extra_instructions", "metadata"].'
        )
    entries = given if is_mapping(given) else dict.fromkeys(cast("Iterable[object]", given), True)
    checked = {
        name: _checked(name, value) for name, value in cast("Mapping[str, object]", entries).items()
    }
    return {name: allowed for name, allowed in checked.items() if allowed is not False}


def require_overridable(options: RunOptions, overridable: Overridable, limits: Limits) -> None:
    """Raises `OptionNotAllowed` for the first option that a caller over the network may not give.

    `overridable` and `limits` are those of the agent. Limits may only be narrowed.
    """
    default = RunOptions()
    for name in _FIELDS:
        value = getattr(options, name)
        if value == getattr(default, name):
            continue
        allowed = overridable.get(name, False)
        if allowed is False:
            known = ", ".join(sorted(overridable)) or "none"
            raise OptionNotAllowed(
                f"The option {name} may not be given for this agent; those that may: {known}.",
                option=name,
            )
        problem = _problem(name, value, allowed, limits)
        if problem:
            raise OptionNotAllowed(f"The option {name} is not allowed: {problem}.", option=name)


def _checked(name: object, value: object) -> bool | frozenset[str]:
    if name not in _FIELDS:
        raise ConfigurationError(
            f"overridable names the option {shown(name)}; the options are {', '.join(_FIELDS)}."
        )
    if isinstance(value, bool):
        if value and name == "model":
            raise ConfigurationError(
                "overridable must list the models that callers may choose: "
                'overridable={"model": ["openai:gpt-5-mini"]}.'
            )
        return value
    if name not in _LISTED or not is_list(value):
        raise ConfigurationError(
            f"overridable[{name!r}] cannot be {shown(value)}; use True or False"
            + (", or a list of names." if name in _LISTED else ".")
        )
    names = frozenset(value)
    if not all(isinstance(one, str) for one in names):
        raise ConfigurationError(f"overridable[{name!r}] is a list of texts, not {shown(value)}.")
    if name == "settings" and not names.issubset(ModelSettings.__struct_fields__):
        unknown = ", ".join(sorted(map(str, names - set(ModelSettings.__struct_fields__))))
        raise ConfigurationError(f"overridable names the settings {unknown}, which do not exist.")
    return cast("frozenset[str]", names)


def _problem(name: str, value: object, allowed: bool | Collection[str], limits: Limits) -> str:
    """Returns why a value of an option is not allowed, or ""."""
    match value:
        case str() if name == "model":
            return "" if isinstance(allowed, Collection) and value in allowed else "another model"
        case ModelSettings():
            return _settings_problem(value, allowed)
        case tuple():
            return _tools_problem(cast("tuple[ExternalTool | str, ...]", value), allowed)
        case str() if name == "output":
            return "pass a JSON Schema, not the name of a type" if value != "str" else ""
        case Limits():
            wider = limits.updated(value).wider(limits)
            return f"{wider} may only be narrowed" if wider else ""
        case OutputSchema() | AllowedTools() | _:
            return ""


def _settings_problem(settings: ModelSettings, allowed: bool | Collection[str]) -> str:
    default = ModelSettings()
    given = {
        name
        for name in settings.__struct_fields__
        if getattr(settings, name) != getattr(default, name)
    }
    refused = given & _UNSAFE_SETTINGS if isinstance(allowed, bool) else given.difference(allowed)
    return f"the setting {min(refused)}" if refused else ""


def _tools_problem(tools: Iterable[ExternalTool | str], allowed: bool | Collection[str]) -> str:
    """Tools that the caller answers are safe; those of the program must be listed."""
    for one in tools:
        if isinstance(one, str) and (isinstance(allowed, bool) or one not in allowed):
            return f"{one[:100]!r} is not a tool that callers may add"
    return ""
