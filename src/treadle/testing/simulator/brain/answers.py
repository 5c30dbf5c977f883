"""Answers: readable sentences made of the real outputs of tools."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from treadle.domain.items import FunctionCall
from treadle.testing.simulator.brain.extraction import expression

MAX_TEXT = 600
MAX_ENTRIES = 30

_ERROR = re.compile(
    r"\s*(?:error|failed|failure|exception|traceback|invalid|denied|rejected|interrupted|"
    r"timed out|timeout|unknown tool|not found|no such|cancelled)\b",
    re.IGNORECASE,
)
_WRAPPERS = ("result", "output", "value", "content", "answer")

Result = tuple[FunctionCall, str]


def compose(results: Sequence[Result]) -> str:
    """Says what each call returned, in the order of the calls."""
    if len(results) == 1:
        return f"According to {sentence(*results[0])}"
    lines = [f"- {sentence(call, output)}" for call, output in results]
    return "\n".join(["Here is what the tools returned:", *lines])


def sentence(call: FunctionCall, output: str) -> str:
    """Says what one call returned, naming the call, or that it failed and why."""
    value = decoded(output)
    given = arguments_of(call)
    about = _about(given)
    if (problem := error_in(value)) is not None:
        return f"`{call.name}`{about}, the call failed: {problem}"
    shown = _shown(value, given)
    formula = _formula(given)
    if formula and "\n" not in shown and formula not in shown:
        return f"`{call.name}`: {formula} = {shown}"
    end = "" if shown.endswith((".", "!", "?", "…")) or "\n" in shown else "."
    return f"`{call.name}`{about}: {shown}{end}"


def decoded(output: str) -> object:
    """Returns the JSON value of an output, or its text where it is no JSON."""
    try:
        return msgspec.json.decode(output)
    except msgspec.DecodeError:
        # Most tools return plain text; that is no error.
        return output.strip()


def arguments_of(call: FunctionCall) -> Mapping[str, object]:
    """Returns the arguments of a call, empty where they are no JSON object."""
    value = decoded(call.arguments)
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def error_in(value: object) -> str | None:
    """Returns the message of an output that reports a failure, None where it does not."""
    if isinstance(value, dict):
        error = cast("dict[str, object]", value).get("error")
        return _plain(error)[:MAX_TEXT] if error else None
    if isinstance(value, str) and _ERROR.match(value):
        return _clipped(value)
    return None


def _about(arguments: Mapping[str, object]) -> str:
    values = [str(v)[:80] for v in arguments.values() if isinstance(v, str | int | float)]
    return f" for {', '.join(values)}" if values else ""


def _formula(arguments: Mapping[str, object]) -> str | None:
    values = list(arguments.values())
    if len(values) == 1 and isinstance(values[0], str) and expression(values[0]):
        return values[0]
    return None


def _shown(value: object, arguments: Mapping[str, object]) -> str:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        if len(fields) == 1 and (key := next(iter(fields))) in _WRAPPERS:
            return _shown(fields[key], arguments)
        known = {str(argument) for argument in arguments.values()}
        fields = {k: v for k, v in fields.items() if str(v) not in known} or fields
        return _clipped(", ".join(_field(key, item) for key, item in _first(fields)))
    return _clipped(_plain(value))


def _field(key: str, value: object) -> str:
    return f"{key.replace('_', ' ')} {_plain(value)}"


def _first(fields: Mapping[str, object]) -> list[tuple[str, object]]:
    return list(fields.items())[:MAX_ENTRIES]


def _plain(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case str():
            return value or "nothing"
        case list():
            entries = cast("list[object]", value)
            more = f" and {len(entries) - MAX_ENTRIES} more" if len(entries) > MAX_ENTRIES else ""
            return ", ".join(_plain(entry) for entry in entries[:MAX_ENTRIES]) + more or "nothing"
        case dict():
            fields = cast("dict[str, object]", value)
            return ", ".join(_field(key, item) for key, item in _first(fields)) or "nothing"
        case _:
            return str(value)


def _clipped(text: str) -> str:
    text = f"\n{text}" if "\n" in text else text
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT].rstrip()}… ({len(text)} characters in all)"
