"""Repairs the answers of servers before the package `mcp` validates them.

That package refuses an answer as a whole if a part of it is not as the protocol wants it: one odd
tool would hide all others, and a call that ran would be reported as failed, so that a model makes
it again. Whether a result keeps to the schema that its tool promised is not checked either: its
text is what the model needs. See https://github.com/modelcontextprotocol/python-sdk/issues/1796.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from mcp.types import ContentBlock
from pydantic import TypeAdapter, ValidationError

from treadle.logging import logger_of

_LOGGER = logger_of("treadle.mcp")
_BLOCK: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)


def repaired(method: str, result: dict[str, Any], server: str) -> dict[str, Any]:
    """Returns the result of a request so that it is valid; `server` is its name, for the log."""
    if method == "tools/list" and isinstance(result.get("tools"), list):
        return {**result, "tools": _tools(cast("list[object]", result["tools"]), server)}
    if method == "tools/call" and result.get("resultType", "complete") == "complete":
        return _called(result)
    return result


def _tools(listed: list[object], server: str) -> list[dict[str, Any]]:
    """Returns the tools that can be called, reduced to what is used of them."""
    found: list[dict[str, Any]] = []
    for entry in listed:
        tool = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        name, schema = tool.get("name"), tool.get("inputSchema")
        if not isinstance(name, str) or not name:
            _LOGGER.warning("The MCP server %s lists a tool without a name: left out.", server)
            continue
        texts = {
            key: tool[key] for key in ("title", "description") if isinstance(tool.get(key), str)
        }
        found.append({"name": name, "inputSchema": _schema(schema), **texts})
    return found


def _schema(given: object) -> dict[str, Any]:
    """Returns a schema of an object, the only kind that arguments can have."""
    schema = dict(cast("dict[str, Any]", given)) if isinstance(given, dict) else {}
    if not isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {}
    required = schema.get("required")
    if "required" in schema and not isinstance(required, list):
        del schema["required"]
    return {**schema, "type": "object"}


def _called(result: dict[str, Any]) -> dict[str, Any]:
    content = result.get("content")
    if content is None:
        content = []
    blocks = cast("list[object]", content) if isinstance(content, list) else [content]
    fixed = {**result, "content": [_block(block) for block in blocks]}
    structured = result.get("structuredContent")
    if structured is None:
        fixed.pop("structuredContent", None)
    elif not isinstance(structured, dict):  # valid in later versions only
        fixed["structuredContent"] = {"result": structured}
    if not isinstance(result.get("isError", False), bool):
        fixed["isError"] = bool(result["isError"])
    if not isinstance(result.get("_meta", {}), dict):
        del fixed["_meta"]
    return fixed


def _block(block: object) -> object:
    """Returns a block of content, or its text if it is of no known kind."""
    if isinstance(block, str):
        return {"type": "text", "text": block}
    try:
        _BLOCK.validate_python(block, by_alias=True, by_name=False)
    except ValidationError:
        text = cast("dict[str, Any]", block).get("text") if isinstance(block, dict) else None
        if not isinstance(text, str):
            text = msgspec.json.encode(block).decode()
        return {"type": "text", "text": text}
    return block
