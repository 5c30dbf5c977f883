"""Messages of JSON-RPC 2.0, as MCP sends them: https://www.jsonrpc.org/specification."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

RpcId = str | int

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

_ENCODER = msgspec.json.Encoder()


class RpcMessage(Struct, frozen=True, kw_only=True):
    """A request, a notification (without an id), or the answer to a request of the server."""

    jsonrpc: Literal["2.0"]
    id: RpcId | UnsetType | None = UNSET
    method: str = ""
    params: dict[str, Any] = {}
    result: dict[str, Any] | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


def result_of(id: RpcId, result: object) -> dict[str, object]:
    """Returns the answer to a request."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_of(id: RpcId | None, code: int, message: str) -> dict[str, object]:
    """Returns the answer to a request that failed."""
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


def frame_of(message: object) -> bytes:
    """Returns a message as a frame of a stream."""
    return b"data: %b\n\n" % _ENCODER.encode(message)
