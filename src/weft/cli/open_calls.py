"""The tool calls under way, and how a line tells them apart."""

import json

from weft.cli.plain_text import one_line
from weft.items import FunctionCall

MAX_LABEL = 50


class OpenCalls:
    """Labels calls by their tool; with their arguments where calls of one tool overlap."""

    def __init__(self) -> None:
        self._calls: dict[str, FunctionCall] = {}
        self._overlapping: set[str] = set()

    def begin(self, call: FunctionCall) -> None:
        """A call was requested."""
        others = {id for id, other in self._calls.items() if other.name == call.name}
        if others:
            self._overlapping |= {call.call_id, *others}
        self._calls[call.call_id] = call

    def label(self, call_id: str, name: str) -> str:
        """Returns what to call the call `call_id` of the tool `name`."""
        if call_id not in self._overlapping:
            return name
        written = as_written(self._calls[call_id])
        return written if len(written) <= MAX_LABEL else f"{written[:MAX_LABEL]}…"

    def end(self, call_id: str) -> None:
        """The call has its output."""
        self._calls.pop(call_id, None)
        self._overlapping.discard(call_id)


def as_written(call: FunctionCall) -> str:
    """Returns the call as Python would write it, in one line."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        return one_line(f"{call.name}({call.arguments})")
    if not isinstance(arguments, dict):
        return one_line(f"{call.name}({call.arguments})")
    listed = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()  # type: ignore[reportUnknownVariableType]
    )
    return one_line(f"{call.name}({listed})")
