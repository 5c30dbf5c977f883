"""The messages of a request: what a run answers, and what is before it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from treadle.domain.arguments import is_mapping, shown
from treadle.domain.inputs import as_history, as_message
from treadle.domain.items import Item, Message
from treadle.errors import InvalidInput
from treadle.server.api_request import ApiRequest
from treadle.server.openai.errors import ParameterRefused

_INSTRUCTING = ("system", "developer")


class WholeInput(NamedTuple):
    """The messages of a request that brings its own history.

    `instructions` are those at the beginning, `messages` those that the run answers, and `so_far`
    what follows them: calls of the client with their outputs.
    """

    instructions: str
    history: Sequence[Item]
    messages: list[Message]
    so_far: Sequence[Item]


class NewInput(NamedTuple):
    """What a request brings to a thread that has the history: after the last word of the agent.

    `outputs` are by the ids of their calls.
    """

    instructions: str
    outputs: dict[str, Any]
    messages: list[Message]


def read_whole(request: ApiRequest[Any, Any], given: list[Any]) -> WholeInput:
    """Returns the messages of a request that brings its own history.

    The history is the caller's own: its calls are data, and are not run. Instructions after the
    beginning need the scope `admin`. Raises 400 for messages of another form, and unless the last
    one is of the user or the output of a call.
    """
    instructions, entries = _without_instructions(given)
    end = _last_of_user(entries)
    begin = end
    while begin and entries[begin - 1].get("role") == "user":
        begin -= 1
    last = entries[-1].get("role") if entries else "system"
    if begin == end or last not in {"user", "tool"}:
        raise ParameterRefused(
            "messages",
            f"The last message is of the role {shown(last)}; it must be one of the user, or, after "
            "a message of the user, the output of a call (role 'tool').",
        )
    try:
        history = as_history(entries[:begin])
        messages = [as_message(_message(entry)) for entry in entries[begin:end]]
        so_far = as_history(entries[end:])
    except InvalidInput as error:
        raise _not_valid(error) from error
    every = [item for item in (*history, *messages, *so_far) if isinstance(item, Message)]
    if any(one.role in _INSTRUCTING for one in every):
        request.require("admin", "A message of the role system or developer after the beginning")
    request.services.limits.require_size(every)
    return WholeInput(instructions, history, messages, so_far)


def read_new(request: ApiRequest[Any, Any], given: list[Any]) -> NewInput:
    """Returns what of the messages is new on a thread that has the history.

    That is what follows the last message of the assistant: outputs of calls, and messages of the
    user. What is before it is on the thread already. Raises 400 for messages of another form.
    """
    instructions, entries = _without_instructions(given)
    begin = len(entries)
    while begin and entries[begin - 1].get("role") != "assistant":
        begin -= 1
    outputs: dict[str, Any] = {}
    messages: list[Message] = []
    for entry in entries[begin:]:
        role, call_id = entry.get("role"), entry.get("tool_call_id")
        if role == "tool":
            if not isinstance(call_id, str) or "content" not in entry:
                raise ParameterRefused(
                    "messages", "A message of the role 'tool' needs tool_call_id and content."
                )
            outputs[call_id] = entry["content"]
        elif role == "user":
            try:
                messages.append(as_message(_message(entry)))
            except InvalidInput as error:
                raise _not_valid(error) from error
        else:
            raise ParameterRefused(
                "messages", f"A message of the role {shown(role)} is not taken here."
            )
    request.services.limits.require_size(messages)
    return NewInput(instructions, outputs, messages)


def _without_instructions(given: list[Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """Returns the text of the instructions at the beginning, and the other messages."""
    entries: list[Mapping[str, Any]] = []
    texts: list[str] = []
    for index, entry in enumerate(given):
        if not is_mapping(entry) or "role" not in entry:
            raise ParameterRefused(
                "messages", f"messages[{index}] is {shown(entry)}, not a message with a role."
            )
        if not entries and entry["role"] in _INSTRUCTING:
            try:
                (message,) = as_history([entry])
            except InvalidInput as error:
                raise _not_valid(error) from error
            texts.append(message.text if isinstance(message, Message) else "")
        else:
            entries.append(entry)
    return "\n\n".join(text for text in texts if text), entries


def _last_of_user(entries: Sequence[Mapping[str, Any]]) -> int:
    """Returns the place after the last message of the user, 0 without one."""
    end = len(entries)
    while end and entries[end - 1].get("role") != "user":
        end -= 1
    return end


def _message(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": fields["role"], "content": fields.get("content")}


def _not_valid(error: InvalidInput) -> ParameterRefused:
    return ParameterRefused("messages", f"messages is not valid: {error.message}")
