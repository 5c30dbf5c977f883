"""Checks of arguments that come from callers; each error names the parameter."""

import reprlib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeGuard, TypeVar, get_args

import msgspec

from treadle.errors import ConfigurationError, InvalidInput

T = TypeVar("T")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 3
_PLAIN = (str, bytes, bytearray, int, float, bool, list, tuple, dict, type(None))

MAX_COUNT = (1 << 63) - 1
"""The largest integer that a database can hold."""


def shown(value: object) -> str:
    """Returns a value for an error message, shortened; of objects only the type."""
    if type(value) not in _PLAIN:
        return f"a {type(value).__name__}"
    try:
        return _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - it may contain an object whose repr raises
        return f"a {type(value).__name__}"


def is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value is a mapping, such as a decoded JSON object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Iterable[object]]:
    """Whether a value contains others: not a text, bytes or a mapping."""
    return isinstance(value, Iterable) and not isinstance(
        value, str | bytes | bytearray | memoryview | Mapping
    )


def capital(text: str) -> str:
    """Returns what `shown` returned, for the beginning of a sentence."""
    return f"A{text[1:]}" if text.startswith("a ") else text


def require_text(name: str, value: object) -> str:
    """Returns a text; raises `InvalidInput` for another type, and for a text that is not UTF-8."""
    text = require_string(name, value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{name} is not valid UTF-8 at character {error.start}; decode it before sending."
        ) from error
    return text


def require_string(name: str, value: object) -> str:
    """Returns a text, which need not be valid UTF-8; raises `InvalidInput` for another type."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text, not {shown(value)}.")
    return value


def require_count(name: str, value: object, least: int) -> int:
    """Returns an integer of at least `least`; raises `InvalidInput`.

    One that no database can hold is as good as the largest one that it can.
    """
    number = require_integer(name, value)
    if number < least:
        raise InvalidInput(f"{name} must be at least {least}, not {shown(value)}.")
    return min(number, MAX_COUNT)


def require_integer(name: str, value: object) -> int:
    """Returns an integer; raises `InvalidInput`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} must be an integer, not {shown(value)}.")
    return value


def require_object(name: str, value: object) -> dict[str, object]:
    """Returns a JSON object as it will be read again; raises `InvalidInput` for anything else."""
    if not is_mapping(value):
        raise InvalidInput(f"{name} must be a dict of JSON values, not {shown(value)}.")
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=dict[str, object])
    except Exception as error:  # a mapping is foreign code, and may raise anything
        raise InvalidInput(
            f"{name} cannot be represented as JSON; use texts, numbers, lists and dicts."
        ) from error


def require_collection(name: str, value: object) -> None:
    """Raises `InvalidInput` for what is not a list, a tuple or a set."""
    if not isinstance(value, Collection) or isinstance(value, str | bytes):
        raise InvalidInput(f"{name} must be a list of texts, not {shown(value)}.")


def require_choice(name: str, value: object, choices: object) -> None:
    """Raises `InvalidInput` unless `value` is one of a `Literal` type."""
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{name}={shown(value)} is not known; use {', '.join(known)}.")


def require_type(name: str, value: object, kind: type[T], example: str) -> T:
    """Returns a value of a type; raises `ConfigurationError`, which shows an `example`."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} cannot be {shown(value)}; write {example}.")
    return value


def require_list(name: str, value: object, example: str) -> tuple[object, ...]:
    """Returns what a list holds; raises `ConfigurationError`, which shows an `example`."""
    if not is_list(value):
        raise ConfigurationError(f"{name} is a list, not {shown(value)}; write {example}.")
    return tuple(value)
