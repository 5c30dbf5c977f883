"""The open tool calls, and the labels that distinguish them."""

import json
from typing import cast

from treadle.cli.plain_text import escaped, one_line
from treadle.domain.items import FunctionCall

MAX_LABEL = 50


class OpenCalls:
    """Labels calls by their tool, and by their arguments if calls of one tool overlap."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[str, str]] = {}
        self._overlapping: set[str] = set()

    def begin(self, call: FunctionCall, to_user: str = "") -> str:
        """Adds a requested call; returns it as written, without the argument `to_user`."""
        others = {id for id, (name, _) in self._calls.items() if name == call.name}
        if others:
            self._overlapping |= {call.call_id, *others}
        written = as_written(call, to_user)
        self._calls[call.call_id] = call.name, written
        return written

    def label(self, call_id: str, name: str) -> str:
        """Returns the label of the call `call_id` of the tool `name`."""
        if call_id not in self._overlapping:
            return name
        _, written = self._calls[call_id]
        return written if len(written) <= MAX_LABEL else f"{written[:MAX_LABEL]}…"

    def end(self, call_id: str) -> None:
        """Removes a call that has its output."""
        self._calls.pop(call_id, None)
        self._overlapping.discard(call_id)


def as_written(call: FunctionCall, to_user: str = "") -> str:
    """Returns the call in Python syntax, in one line, without the argument `to_user`."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        return one_line(f"{call.name}({call.arguments})")
    if not isinstance(arguments, dict):
        return one_line(f"{call.name}({call.arguments})")
    listed = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()  # type: ignore[reportUnknownVariableType]
        if name != to_user
    )
    return one_line(f"{call.name}({listed})")


def in_full(call: FunctionCall) -> list[str]:
    """Returns the tool and then each argument, in full and on a line of its own.

    Nothing in the arguments can hide another one: a line break or a character that cannot be seen
    is escaped. Arguments that are not a JSON object are one line.
    """
    name, arguments = escaped(call.name), call.arguments or "{}"
    try:
        decoded = json.loads(arguments)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        return [name, f"  {escaped(json.dumps(arguments, ensure_ascii=False))}"]
    return [
        name,
        *(
            f"  {escaped(argument)}: {escaped(json.dumps(value, ensure_ascii=False))}"
            for argument, value in cast("dict[str, object]", decoded).items()
        ),
    ]
