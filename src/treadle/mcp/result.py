"""Converts the result of a server to the return value of a treadle tool.

https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

import base64
import contextlib
from collections.abc import Sequence
from typing import assert_never, cast

import msgspec
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from treadle.tools.output import Image

# The image types that all providers read:
# https://platform.openai.com/docs/guides/images-vision
# https://docs.claude.com/en/docs/build-with-claude/vision
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def output_of(result: CallToolResult) -> object:
    """Returns the content of a result: a text, or a list of texts and images.

    A structured result appears once, as JSON: servers repeat it as text for older clients. Content
    that models cannot read, such as audio, is replaced by a note.
    """
    content = [_shown(block) for block in result.content]
    images = [part for part in content if isinstance(part, Image)]
    text = "\n".join(part for part in content if isinstance(part, str))
    if result.structured_content is not None:
        text = _with_structure(text, result.structured_content)
        content = [text, *images]
    return content if images else text


def error_text(result: CallToolResult) -> str:
    """Returns the text of an error result."""
    output = output_of(result)
    parts = cast("Sequence[object]", output) if isinstance(output, list) else [output]
    return "\n".join(part for part in parts if isinstance(part, str)) or "it gave no reason"


def _with_structure(text: str, structured: object) -> str:
    """Joins a text and a structured result, without repeating it."""
    if text and _is_wrapper(structured):
        return text
    compact = msgspec.json.encode(structured).decode()
    return compact if not text or _says(text, structured) else f"{text}\n{compact}"


def _is_wrapper(structured: object) -> bool:
    """Whether the server wrapped a value that is not an object in `result`."""
    return isinstance(structured, dict) and cast("dict[str, object]", structured).keys() == {
        "result"
    }


def _says(text: str, structured: object) -> bool:
    try:
        return msgspec.json.decode(text) == structured
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False


def _shown(block: ContentBlock) -> str | Image:
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return _image(block.data, block.mime_type)
        case AudioContent():
            return f"[audio, {block.mime_type}, cannot be shown]"
        case ResourceLink():
            return " ".join(filter(None, [f"[{block.name}]({block.uri})", block.description]))
        case EmbeddedResource():
            resource = block.resource
            if isinstance(resource, BlobResourceContents):
                return _image(resource.blob, resource.mime_type or "application/octet-stream")
            return resource.text
        case _ as unreachable:
            assert_never(unreachable)


def _image(data: str, media_type: str) -> str | Image:
    """Returns an image, or a note if providers would refuse it and so fail the run."""
    if media_type in _IMAGES:
        with contextlib.suppress(ValueError):
            return Image(base64.b64decode(data, validate=True), media_type)
    return f"[{media_type}, cannot be shown]"
