"""Decoded requests, in one vocabulary for all wire formats."""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.testing.simulator.rejection import Rejected

T = TypeVar("T")
WireFormat = Literal["responses", "chat", "messages", "gemini", "converse"]
Entry = Message | FunctionCall | FunctionCallOutput


class ToolChoice(Struct, frozen=True):
    """Whether the model may, must not or must call a tool, or one tool by `name`."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""


class ProviderRequest(Struct, frozen=True):
    """A decoded request.

    `history` holds messages, calls and outputs in order, system messages included; reasoning and
    other items are left out. `rounds` counts the groups of tool outputs since the last user
    message. `body` is the JSON as received, `size` its length in bytes.
    """

    format: WireFormat
    model: str
    stream: bool
    instructions: str
    history: tuple[Entry, ...]
    tools: tuple[ToolSchema, ...]
    tool_choice: ToolChoice
    output_schema: OutputSchema | None
    include_usage: bool
    rounds: int
    body: Mapping[str, object]
    size: int

    def tool(self, name: str) -> ToolSchema | None:
        """Returns the declared tool of that name."""
        return next((tool for tool in self.tools if tool.name == name), None)


def decode(body: Mapping[str, object], shape: type[T]) -> T:
    """Checks `body` against `shape`. Raises `Rejected` with the place and the reason."""
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        raise Rejected(400, f"Invalid request: {error}") from error


def check_pairs(history: Iterable[Entry], *, adjacent: bool) -> None:
    """Raises `Rejected` as the providers do, unless each call has its output, and after it.

    With `adjacent`, only outputs may be between a call and its output.
    """
    seen: set[str] = set()
    unanswered: dict[str, None] = {}
    for entry in history:
        if isinstance(entry, FunctionCall):
            seen.add(entry.call_id)
            unanswered[entry.call_id] = None
        elif isinstance(entry, FunctionCallOutput):
            _require_call(entry.call_id, seen)
            unanswered.pop(entry.call_id, None)
        elif adjacent:
            _require_none(unanswered)
    _require_none(unanswered)


def count_rounds(history: Iterable[Entry]) -> int:
    """Counts the groups of tool outputs since the last user message."""
    rounds = 0
    inside = False
    for entry in history:
        is_output = isinstance(entry, FunctionCallOutput)
        if isinstance(entry, Message) and entry.role == "user":
            rounds = 0
        elif is_output and not inside:
            rounds += 1
        inside = is_output
    return rounds


def _require_call(call_id: str, seen: set[str]) -> None:
    if call_id not in seen:
        message = f"No tool call found for function call output with call_id {call_id}."
        raise Rejected(400, message, param="input")


def _require_none(unanswered: Mapping[str, None]) -> None:
    if unanswered:
        names = ", ".join(unanswered)
        raise Rejected(400, f"No tool output found for function call {names}.", param="input")
