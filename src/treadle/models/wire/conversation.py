"""A conversation as every API wants it: messages, and responses with the outputs of their calls."""

from collections.abc import Collection, Iterable
from typing import cast

import msgspec
from msgspec import Struct

from treadle.domain.hosted_tools import remote_call_name
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.models.wire.loose_json import joined
from treadle.models.wire.remote_approvals import settled
from treadle.models.wire.sendable import Changes

_MISSING = "The output of this call is not known."


class Response(Struct):
    """What a model wrote in one go, and the outputs of all its calls in their order."""

    items: list[Message | Reasoning | FunctionCall | ProviderItem]
    outputs: list[FunctionCallOutput]


Entry = Message | Response


def arrange(
    items: Iterable[Item], changes: Changes, provider: str = "", servers: Collection[str] = ()
) -> list[Entry]:
    """Returns the entries of a conversation; every call has exactly one output, right behind it.

    The histories of threads are in this order already. Hooks may make others, and no API accepts a
    call without an output, an output without a call, or two calls of one id.

    Calls of the hosted tools of others than `provider` become calls of tools, if their output is
    known. `servers` are the MCP servers whose calls it makes itself once they are approved.
    """
    entries: list[Entry] = []
    current: Response | None = None
    open_calls: dict[str, tuple[FunctionCall, Response]] = {}
    seen: set[str] = set()
    for item in settled(items, provider, servers):
        if isinstance(item, ProviderItem) and item.provider != provider:
            made = _as_call(item)
            if made is not None and made[0].call_id not in seen:
                seen.add(made[0].call_id)
                if current is None or current.outputs:
                    current = Response([], [])
                    entries.append(current)
                current.items.append(made[0])
                current.outputs.append(made[1])
            continue
        if isinstance(item, FunctionCallOutput):
            _, response = open_calls.pop(item.call_id, (None, None))
            if response is None:
                changes.note(item, "pairing", "An output without a call of its own is left out.")
            else:
                response.outputs.append(item)
            continue
        if isinstance(item, Message) and item.role != "assistant":
            current = None
            entries.append(item)
            continue
        if isinstance(item, FunctionCall) and item.call_id in seen:
            changes.note(
                item, "pairing", f"A second call with the id {item.call_id!r} is left out."
            )
            continue
        if current is None or current.outputs:
            current = Response([], [])
            entries.append(current)
        current.items.append(item)
        if isinstance(item, FunctionCall):
            seen.add(item.call_id)
            open_calls[item.call_id] = item, current
    for call, response in open_calls.values():
        changes.note(call, "pairing", "A call without an output is sent with a placeholder.")
        response.outputs.append(FunctionCallOutput(call.call_id, _MISSING, is_error=True))
    for entry in entries:
        if isinstance(entry, Response) and len(entry.outputs) > 1:
            _sort(entry)
    return entries


def _as_call(item: ProviderItem) -> tuple[FunctionCall, FunctionCallOutput] | None:
    """Returns the call of another provider's hosted tool as a call that any model can read."""
    call = item.call
    if call is None or call.status == "in_progress" or not call.output:
        return None
    arguments = call.arguments
    if call.tool != "mcp":
        arguments = msgspec.json.encode({"input": joined(arguments)}).decode()
    name = remote_call_name(call.server, call.name) if call.tool == "mcp" else call.tool
    # Not the id of the provider, which it may have given to another call as well.
    call_id = f"hosted_{call.call_id}"
    return (
        FunctionCall(call_id, name, arguments),
        FunctionCallOutput(call_id, call.output, is_error=call.status == "failed"),
    )


def _sort(response: Response) -> None:
    calls = [item.call_id for item in response.items if isinstance(item, FunctionCall)]
    if calls != [output.call_id for output in response.outputs]:
        outputs = {output.call_id: output for output in response.outputs}
        response.outputs = [outputs[call_id] for call_id in calls]


def split_system(entries: list[Entry]) -> tuple[list[Message], list[Entry]]:
    """Returns the system messages that a conversation begins with, and the rest."""
    count = 0
    for entry in entries:
        if not is_system(entry):
            break
        count += 1
    return cast("list[Message]", entries[:count]), entries[count:]


def is_system(entry: Entry) -> bool:
    """Whether an entry is a message of the program instead of a person."""
    return isinstance(entry, Message) and entry.role in {"system", "developer"}


def as_user(system: Message) -> Message:
    """Returns a system message as one of the user, marked, for APIs that take it only first."""
    text = f"<system>\n{system.text.strip()}\n</system>"
    return Message("user", (InputText(text),), system.id)
