"""Messages in the JSON form of the GenAI conventions; pure.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-output-messages.json
"""

from collections.abc import Iterable, Sequence

import msgspec

from treadle.domain.files import Media, data_of
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
)

Part = dict[str, object]
_MODALITIES = {InputImage: "image", InputAudio: "audio"}


def input_messages(messages: Iterable[Message]) -> str:
    """Returns messages to the model as JSON (`gen_ai.input.messages`)."""
    return _json([{"role": m.role, "parts": [_part(p) for p in m.content]} for m in messages])


def output_messages(items: Sequence[Item], finish_reason: str) -> str:
    """Returns one response of the model as JSON (`gen_ai.output.messages`)."""
    parts = [part for item in items for part in _parts(item)]
    return _json([{"role": "assistant", "parts": parts, "finish_reason": finish_reason}])


def _parts(item: Item) -> list[Part]:
    match item:
        case Message():
            return [_part(part) for part in item.content]
        case Reasoning():
            return [{"type": "reasoning", "content": item.text}] if item.text else []
        case FunctionCall():
            return [
                {
                    "type": "tool_call",
                    "id": item.call_id,
                    "name": item.name,
                    "arguments": _arguments(item.arguments),
                }
            ]
        case _:
            return []


def _part(part: ContentPart) -> Part:
    match part:
        case InputText() | OutputText():
            return {"type": "text", "content": part.text}
        case InputImage() | InputFile() | InputAudio():
            return _media(part)
        case _:
            return {"type": "refusal", "content": part.refusal}


def _media(part: Media) -> Part:
    found: Part = {} if isinstance(part, InputFile) else {"modality": _MODALITIES[type(part)]}
    url = data_of(part)
    head, comma, data = url.partition(",")
    if part.file_id and not url:
        kind = {"mime_type": part.media_type} if part.media_type else {}
        return {"type": "file", **found, **kind, "file_id": part.file_id}
    if not (comma and head.startswith("data:")):
        return {"type": "uri", **found, "uri": url}
    kind = head.removeprefix("data:").partition(";")[0]
    return {"type": "blob", **found, "mime_type": kind, "content": data}


def _arguments(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text  # invalid JSON is kept as the model wrote it


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
