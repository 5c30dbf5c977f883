"""Suggests the right keyword for a wrong one."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def suggests(name: str, known_as: Mapping[str, str]) -> Callable[[F], F]:
    """Decorates a function: an unknown keyword raises `TypeError` that suggests the right one.

    - `name`: the function in the message.
    - `known_as`: what to write instead of names that other libraries use.
    """

    def decorate(function: F) -> F:
        known = frozenset(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if not kwargs.keys() <= known:
                wrong = next(key for key in kwargs if key not in known)
                raise TypeError(_message(name, wrong, known, known_as))
            return function(*args, **kwargs)

        return cast("F", checked)

    return decorate


def _message(name: str, wrong: str, known: frozenset[str], known_as: Mapping[str, str]) -> str:
    hint = known_as.get(wrong)
    if hint is None:
        # Loaded for a mistake only.
        from difflib import get_close_matches  # noqa: PLC0415

        close = get_close_matches(wrong, known - {"self"}, n=1, cutoff=0.6)
        hint = f"{close[0]}=…" if close else ""
    text = f"{name}() has no parameter {wrong!r}"
    return f"{text}; write {hint}." if hint else f"{text}."
