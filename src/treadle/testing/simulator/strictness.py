"""Requests that strict servers refuse and others accept, as faults.

https://github.com/ggml-org/llama.cpp (`strict-args`)
https://api-docs.deepseek.com/guides/thinking_mode (`needs-reasoning`)
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from treadle.domain.items import FunctionCall
from treadle.testing.simulator.faults import Fault, find
from treadle.testing.simulator.rejection import Rejected
from treadle.testing.simulator.request import ProviderRequest


def refusal(request: ProviderRequest, faults: Sequence[Fault]) -> Rejected | None:
    """Returns the error with which a strict server answers `request`, if one of the faults asks."""
    if find(faults, "strict-args"):
        for entry in request.history:
            if isinstance(entry, FunctionCall) and not _is_object(entry.arguments):
                message = f"Failed to parse tool call arguments as JSON: {entry.arguments[:64]!r}"
                return Rejected(500, message, kind="server_error")
    if find(faults, "needs-reasoning") and _lacks_reasoning(request):
        message = "The `reasoning_content` in the thinking mode must be passed back to the API."
        return Rejected(400, message, code="invalid_request_error")
    return None


def _is_object(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments, type=dict[str, object])
    except msgspec.DecodeError:
        return False
    return True


def _lacks_reasoning(request: ProviderRequest) -> bool:
    """Whether a message of the assistant has calls and no `reasoning_content`."""
    if request.format != "chat":
        return False
    messages = cast("Sequence[dict[str, object]]", request.body["messages"])
    return any(
        message.get("tool_calls") and message.get("reasoning_content") is None
        for message in messages
    )
