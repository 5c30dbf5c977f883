"""Inputs: what callers pass as a message or as a history, converted to items or refused.

Everything that a program, a person or another process brings into a history comes through here
before it is acknowledged. What was constructed by a caller is encoded and decoded once, so that a
journal can read what it writes: structs do not check the types of their fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, cast, get_args

import msgspec
from msgspec.structs import replace

from treadle.domain.arguments import capital, is_list, is_mapping, require_text, shown
from treadle.domain.files import Media
from treadle.domain.history import History, require_valid
from treadle.domain.ids import new_id
from treadle.domain.items import (
    FORMS,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputPart,
    ProviderItem,
    Reasoning,
    Role,
    limited,
    message,
    not_empty,
    parts_of,
    refusal_part,
)
from treadle.domain.removed_items import is_removed
from treadle.errors import InvalidInput

MAX_ITEMS = 1_000_000
"""The most items of a history that a caller passes."""

MAX_MESSAGES = 100
"""The most messages that are sent at a time."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_ITEM_FORMS = (
    'pass items, such as those of RunResult.history, or {"role": "user", "content": "…"}, '
    '{"role": "assistant", "content": "…", "tool_calls": […]} and {"role": "tool", '
    '"tool_call_id": "…", "content": "…"}'
)

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Item)
_MARKED = (Reasoning, FunctionCall, FunctionCallOutput, ProviderItem)
_INVALID = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)


def as_message(given: object) -> Message:
    """Returns the input of a run as a message of the user.

    A `Message` may have the roles `developer` and `system` as well. A mapping may not: it may come
    from outside of the program, whose author would then give instructions to the model. Raises
    `InvalidInput`, which shows the accepted forms.
    """
    if isinstance(given, str):
        return message("user", given)
    made = _as_message(given, "user", from_outside=True)
    if made.role == "assistant":
        raise InvalidInput(
            "The input of a run cannot be a message of the assistant; pass earlier messages as "
            "history=[…]."
        )
    return made


def as_messages(given: object) -> list[Message]:
    """Returns the input of a run: one message, or several if `given` is a list of messages.

    Each may be what `as_message` takes; texts among messages are messages of the user. Raises
    `InvalidInput`.
    """
    if not is_list(given) or isinstance(given, Media):
        return [as_message(given)]
    entries = limited(given)
    if not any(_is_message(entry) for entry in entries):
        return [as_message(entries)]
    if len(entries) > MAX_MESSAGES:
        raise InvalidInput(f"At most {MAX_MESSAGES} messages are sent at a time; add() takes more.")
    return [as_message(entry) for entry in entries]


def messages_to_send(given: object) -> Sequence[Message]:
    """Returns the messages to send: none for an empty list, else as `as_messages` does."""
    is_empty = is_list(given) and not isinstance(given, Media) and not given
    return () if is_empty else as_messages(given)


def user_messages(given: object) -> list[Message]:
    """Returns messages that come from outside of the program, as messages of the user.

    - `given`: a text, a message, or a list of texts and messages, as a client sent them.

    Use it for what a client may add to a thread, or pass as history: `thread.add` and `history=`
    take items of any role, whose author gives instructions to the model, or writes in its name.
    Raises `InvalidInput` for an item that is not a message of the user.
    """
    messages = as_messages(given)
    for one in messages:
        if one.role != "user":
            raise InvalidInput(
                f"The role {shown(one.role)} is not one of a client; only messages of the role "
                "'user' are accepted here."
            )
    return messages


def injected_message(given: object, role: Role) -> Message:
    """Returns a message of a hook; a text or parts become a message of `role`.

    A message may have any role. Raises `InvalidInput`.
    """
    if role not in ROLES:
        raise InvalidInput(f"role={shown(role)} is not known; use {', '.join(ROLES)}.")
    return _as_message(given, role, from_outside=False)


def as_history(given: object) -> Sequence[Item]:
    """Returns a history as valid items: those of treadle, and mappings as the OpenAI APIs use.

    Raises `InvalidInput` for another form, and unless every call has exactly one output.
    """
    if isinstance(given, History):
        return given  # its items came through here, or from a provider
    if not is_list(given):
        raise InvalidInput(f"A history is a list of items, not {shown(given)}; {_ITEM_FORMS}.")
    entries = tuple(islice(given, MAX_ITEMS + 1))
    if len(entries) > MAX_ITEMS:
        raise InvalidInput(f"The history has more than {MAX_ITEMS:,} items.")
    items = [item for entry in entries for item in _items(entry)]
    require_valid(items)
    return items


def with_ids(items: Sequence[Item]) -> list[Item]:
    """Returns items in which every message has an id."""
    return [
        replace(item, id=new_id("msg")) if isinstance(item, Message) and not item.id else item
        for item in items
    ]


def without_new_ids(items: Sequence[Item]) -> list[Item]:
    """Returns items without ids that `as_history` may have given them, to compare what was passed.

    Calls and outputs have the id of their call in any case.
    """
    kinds = Message | FunctionCall | FunctionCallOutput
    return [replace(item, id="") if isinstance(item, kinds) else item for item in items]


def checked_output(output: str | tuple[OutputPart, ...]) -> str | tuple[OutputPart, ...]:
    """Returns the output of a call as a journal reads it; raises `InvalidInput`."""
    item = _checked(FunctionCallOutput("", output))
    assert isinstance(item, FunctionCallOutput)
    return item.output


def _checked(item: Item) -> Item:
    """Returns an item as a journal reads it after writing it; raises `InvalidInput`."""
    try:
        return _DECODER.decode(_ENCODER.encode(item))
    except _INVALID as error:
        raise InvalidInput(f"The {type(item).__name__} is not valid: {error}.") from error


# Messages


def _as_message(given: object, role: Role, *, from_outside: bool) -> Message:
    if isinstance(given, Message):
        return _given_message(given)
    if is_mapping(given):
        if "role" in given:
            return _message_in(given, ("user",) if from_outside else ROLES)
        return message(role, [given])
    if isinstance(given, str):
        return message(role, given)
    if isinstance(given, Media):
        return message(role, [given])
    if not is_list(given):
        raise InvalidInput(f"{capital(shown(given))} is not a message; {FORMS}.")
    entries = limited(given)
    messages = [entry for entry in entries if _is_message(entry)]
    if not messages:
        return not_empty(Message(role, parts_of(role, entries), new_id("msg")))
    if len(entries) > 1:
        raise InvalidInput(
            f"The list has {len(entries)} entries, and a message is one of them; pass one message "
            "at a time, and the earlier ones of a run as history=[…]."
        )
    return _as_message(messages[0], role, from_outside=from_outside)


def _is_message(entry: object) -> bool:
    return isinstance(entry, Message) or (isinstance(entry, Mapping) and "role" in entry)


def _given_message(given: Message) -> Message:
    """Returns a message that the caller constructed, with an id."""
    _require_role(given.role, ROLES)
    parts = parts_of(given.role, given.content)
    id = require_text("The id of the message", given.id) or new_id("msg")
    return cast("Message", _checked(not_empty(replace(given, content=parts, id=id))))


def _message_in(fields: Mapping[str, object], roles: Sequence[Role]) -> Message:
    """Returns the message in a mapping such as `{"role": "user", "content": "hi"}`."""
    role = _require_role(fields["role"], roles)
    id = fields.get("id")
    named = require_text("The id of the message", id) if id is not None else ""
    return not_empty(Message(role, parts_of(role, fields.get("content")), named or new_id("msg")))


def _require_role(role: object, roles: Sequence[Role]) -> Role:
    if role in roles:
        return cast("Role", role)
    if role in ROLES:
        raise InvalidInput(
            f"A mapping cannot have the role {shown(role)} here, because it may come from outside; "
            f"pass Message({shown(role)}, …) if the program wants it."
        )
    known = ", ".join(roles)
    raise InvalidInput(f"The role {shown(role)} is not one of a message; use {known}.")


# Histories


def _items(entry: object) -> Iterator[Item]:
    """Yields the items in an entry of a history."""
    if isinstance(entry, _MARKED) and is_removed(entry):
        return
    match entry:
        case Message():
            # An empty message is kept: a model may have written one.
            _require_role(entry.role, ROLES)
            parts = parts_of(entry.role, entry.content, was_accepted=True)
            yield _checked(replace(entry, content=parts))
        case FunctionCallOutput():
            output = _output_in(entry.output, was_accepted=True)
            yield _checked(replace(entry, output=output))
        case Reasoning() | FunctionCall() | ProviderItem():
            yield _checked(entry)
        case Mapping():
            yield from _items_in(cast("Mapping[str, object]", entry))
        case _:
            raise InvalidInput(
                f"{capital(shown(entry))} is not an item of a history; {_ITEM_FORMS}."
            )


def _items_in(fields: Mapping[str, object]) -> Iterator[Item]:
    """Yields the items in a mapping: an item of treadle as JSON, or a message of another API."""
    kind = fields.get("type")
    if kind in ("message", "function_call", "function_call_output", "reasoning", "provider_item"):
        try:
            yield from _items(_DECODER.decode(_ENCODER.encode(fields)))
        except _INVALID as error:
            if kind not in ("message", "function_call_output"):
                raise InvalidInput(f"The item of the type {kind} is not valid: {error}.") from error
        else:
            return
    if "role" in fields and kind in (None, "message"):
        yield from _messages_in(fields)
    elif kind == "function_call_output":
        call_id = require_text("call_id", fields.get("call_id"))
        yield FunctionCallOutput(call_id, _output_in(fields.get("output")), new_id("fco"))
    else:
        raise InvalidInput(f"{capital(shown(fields))} is not an item of a history; {_ITEM_FORMS}.")


def _messages_in(fields: Mapping[str, object]) -> Iterator[Item]:
    """Yields the items of a message in the form of Chat Completions."""
    role, content = fields["role"], fields.get("content")
    if role == "tool":
        call_id = require_text("tool_call_id", fields.get("tool_call_id"))
        yield FunctionCallOutput(call_id, _output_in(content), new_id("fco"))
        return
    role = _require_role(role, ROLES)
    calls = fields.get("tool_calls") or ()
    refusal = fields.get("refusal")
    parts = parts_of(role, content) if content is not None else ()
    if isinstance(refusal, str) and role == "assistant":
        parts = (*parts, refusal_part(role, refusal))
    if parts or not calls:
        id = require_text("The id of the message", fields.get("id") or "") or new_id("msg")
        yield Message(role, parts, id)
    if not is_list(calls) or (calls and role != "assistant"):
        raise InvalidInput(f"tool_calls={shown(calls)} is not a list of calls of the assistant.")
    for call in calls:
        yield _call_in(call)


def _call_in(call: object) -> FunctionCall:
    """Returns the call in an entry of `tool_calls`."""
    function = call.get("function") if is_mapping(call) else None
    if not is_mapping(call) or not is_mapping(function):
        raise InvalidInput(
            f"{capital(shown(call))} is not a tool call; {_ITEM_FORMS}, with "
            'tool_calls=[{"id": "…", "function": {"name": "…", "arguments": "{}"}}].'
        )
    return FunctionCall(
        require_text("The id of a tool call", call.get("id")),
        require_text("The name of a tool call", function.get("name")),
        require_text("The arguments of a tool call (a JSON text)", function.get("arguments")),
        new_id("fc"),
    )


def _output_in(output: object, *, was_accepted: bool = False) -> str | tuple[OutputPart, ...]:
    if isinstance(output, str):
        return require_text("The output of a tool call", output)
    parts = parts_of("user", output, was_accepted=was_accepted)
    return cast("tuple[OutputPart, ...]", parts)
