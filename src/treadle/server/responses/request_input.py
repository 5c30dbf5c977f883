"""The input of a request: what goes before, and the messages that the run answers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from treadle.domain.arguments import is_mapping, shown
from treadle.domain.inputs import as_history, as_message
from treadle.domain.items import FunctionCallOutput, Item, Message
from treadle.errors import InvalidInput
from treadle.server.api_request import ApiRequest
from treadle.server.openai.errors import ParameterRefused
from treadle.server.openai.tool_options import LABEL

_OWN_KINDS = frozenset(
    {
        *("mcp_approval_request", "mcp_approval_response", "mcp_list_tools", "mcp_call"),
        *("web_search_call", "file_search_call", "code_interpreter_call"),
    }
)
"""Items of a history that say nothing to a model, or that only its provider can read."""


class Approval(NamedTuple):
    """Whether a call may run."""

    approve: bool
    reason: str


class Outputs(NamedTuple):
    """What a client answers.

    That is outputs by the ids of their calls, approvals by those of their items, and its messages.
    """

    outputs: dict[str, Any]
    approvals: dict[str, Approval]
    messages: list[Message]


def read_answers(request: ApiRequest[Any, Any], given: str | list[Any]) -> Outputs:
    """Returns what of the input is for a conversation that is stored.

    That is outputs of calls and new messages of the user; what else a client repeats of the
    conversation is in it already, and left out. Raises 400 for items of another form.
    """
    outputs: dict[str, Any] = {}
    approvals: dict[str, Approval] = {}
    messages: list[Message] = []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    for index, entry in enumerate(given):
        if is_mapping(entry) and entry.get("type") == "mcp_approval_response":
            id, approval = _approval(index, entry)
            approvals[id] = approval
            continue
        for fields in _entries(index, entry):
            if fields.get("type") == "function_call_output":
                call_id = fields.get("call_id")
                if not isinstance(call_id, str) or "output" not in fields:
                    raise ParameterRefused(
                        f"input[{index}]", f"input[{index}] needs call_id and output."
                    )
                outputs[call_id] = fields["output"]
            elif _is_user_message(fields):
                try:
                    messages.append(as_message(_message(fields)))
                except InvalidInput as error:
                    raise ParameterRefused(
                        f"input[{index}]", f"input[{index}] is not valid: {error.message}"
                    ) from error
    request.services.limits.require_size(messages)
    return Outputs(outputs, approvals, messages)


def _approval(index: int, fields: Mapping[str, object]) -> tuple[str, Approval]:
    id, approve = fields.get("approval_request_id"), fields.get("approve")
    reason = fields.get("reason") or ""
    if not (isinstance(id, str) and isinstance(approve, bool) and isinstance(reason, str)):
        raise ParameterRefused(
            f"input[{index}]",
            f"input[{index}] needs approval_request_id and approve, and may have a reason.",
        )
    return id, Approval(approve, reason)


class RequestInput(NamedTuple):
    """The items before the messages, the messages, and the items with which their answer begins."""

    history: Sequence[Item]
    messages: list[Message]
    so_far: Sequence[Item]


def read_input(request: ApiRequest[Any, Any], given: str | list[Any]) -> RequestInput:
    """Returns the input of a request that begins a conversation.

    The history is the caller's own: its calls are data, and are not run. It may end with calls of
    the client and their outputs. Instructions in it, which are messages of the roles `system` and
    `developer`, need the scope `admin`. Raises 400 for items of another form, and if the last one
    is neither a message of the user nor an output.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    entries = [entry for index, one in enumerate(given) for entry in _entries(index, one)]
    if given and is_mapping(given[-1]) and given[-1].get("type") == "mcp_approval_response":
        raise ParameterRefused("input", "An approval needs previous_response_id or conversation.")
    end = len(entries)
    while end and not _is_user_message(entries[end - 1]):
        end -= 1
    begin = end
    while begin and _is_user_message(entries[begin - 1]):
        begin -= 1
    try:
        messages = [as_message(_message(entry)) for entry in entries[begin:end]]
        history, so_far = as_history(entries[:begin]), as_history(entries[end:])
    except InvalidInput as error:
        raise ParameterRefused("input", f"input is not valid: {error.message}") from error
    if not messages:
        raise ParameterRefused("input", "input needs a message of the user.")
    if so_far and not isinstance(so_far[-1], FunctionCallOutput):
        raise ParameterRefused(
            "input",
            "The last item of input must be a message of the user, or the output of a call.",
        )
    data = [one for one in (*history, *so_far) if isinstance(one, Message)]
    if any(one.role in {"system", "developer"} for one in data):
        request.require("admin", "A message of the role system or developer")
    request.services.limits.require_size([*data, *messages])
    return RequestInput(history, messages, so_far)


def _entries(index: int, entry: object) -> list[dict[str, Any]]:
    """Returns an item of the input as items of a history."""
    if not isinstance(entry, Mapping):
        raise ParameterRefused(f"input[{index}]", f"input[{index}] is {shown(entry)}, not an item.")
    fields = dict(cast("Mapping[str, Any]", entry))
    kind = fields.get("type", "message")
    if kind in {"message", "function_call", "function_call_output"}:
        return [fields]
    if kind == "mcp_call" and fields.get("server_label") == LABEL:
        return _call_and_output(fields)
    if kind in _OWN_KINDS or kind == "reasoning":
        return []  # a reasoning is read again by the model that wrote it, on its own thread
    raise ParameterRefused(
        f"input[{index}].type", f"input[{index}] is of the type {shown(kind)}, which is not served."
    )


def _call_and_output(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a call of a tool of the agent as the call and its output."""
    call_id = fields.get("id")
    output = fields.get("output")
    return [
        {
            "type": "function_call",
            "call_id": call_id,
            "name": fields.get("name"),
            "arguments": fields.get("arguments"),
        },
        {
            "type": "function_call_output",
            "call_id": call_id,
            "output": output if isinstance(output, str) else "The call failed.",
        },
    ]


def _is_user_message(fields: Mapping[str, Any]) -> bool:
    return fields.get("role") == "user" and fields.get("type", "message") == "message"


def _message(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": fields["role"], "content": fields.get("content")}
