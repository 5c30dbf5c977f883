"""Turns: a conversation as alternating turns of user and assistant, for the Messages API.

https://platform.claude.com/docs/en/api/messages/create
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)

Block = dict[str, object]

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DATA_URL = re.compile(r"data:(?P<type>[^;,]+)(?:;[^;,]+)*;base64,(?P<data>.*)", re.DOTALL)
# The API requires the first turn to be the user's, but a history may begin with a greeting.
_OPENING: Block = {"type": "text", "text": "(The conversation begins.)"}


class Turn(Struct):
    """One turn of a side; raw blocks occur only in turns of the assistant."""

    role: Literal["user", "assistant"]
    content: list[Block | msgspec.Raw]


def split_instructions(items: Sequence[Item]) -> tuple[list[str], Sequence[Item]]:
    """Returns the texts of the system messages that `items` begin with, and the rest."""
    texts: list[str] = []
    for item in items:
        if not isinstance(item, Message) or item.role not in {"system", "developer"}:
            break
        texts.append(item.text)
    return texts, items[len(texts) :]


def encode_turns(items: Iterable[Item], provider: str) -> list[Turn]:
    """Returns the turns of a conversation.

    Reasoning and items of other providers are left out, and so is reasoning without a signature:
    the API would refuse both.
    """
    turns: list[Turn] = []
    for item in items:
        role, blocks = _encode_item(item, provider)
        if not blocks:
            continue
        if not turns and role == "assistant":
            turns.append(Turn("user", [dict(_OPENING)]))
        if not turns or turns[-1].role != role:
            turns.append(Turn(role, []))
        turns[-1].content += blocks
    return turns


def _encode_item(
    item: Item, provider: str
) -> tuple[Literal["user", "assistant"], Sequence[Block | msgspec.Raw]]:
    match item:
        case Message(role="assistant"):
            return "assistant", [b for b in _blocks(item.content) if b["type"] == "text"]
        case Message(role="user"):
            return "user", _blocks(item.content)
        case Message():
            # Only some models take system messages between turns, so the user's turn carries it.
            text = item.text.strip()
            return "user", [_text(f"<system>\n{text}\n</system>")] if text else []
        case FunctionCall():
            return "assistant", [_tool_use(item)]
        case FunctionCallOutput():
            return "user", [_tool_result(item)]
        case Reasoning():
            return "assistant", _thinking(item) if item.provider == provider else []
        case ProviderItem():
            return "assistant", [item.raw] if item.provider == provider else []
        case _ as unreachable:
            assert_never(unreachable)


def _blocks(parts: Iterable[ContentPart]) -> list[Block]:
    """The parts as blocks; blank text is left out, because the API refuses it."""
    blocks: list[Block] = []
    for part in parts:
        match part:
            case InputText() | OutputText():
                text = part.text
            case Refusal():
                text = part.refusal
            case InputImage():
                blocks.append(_image(part))
                continue
            case _ as unreachable:
                assert_never(unreachable)
        if text.strip():
            blocks.append(_text(text))
    return blocks


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _image(image: InputImage) -> Block:
    data = _DATA_URL.fullmatch(image.image_url)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": image.image_url}}
    source = {"type": "base64", "media_type": data["type"], "data": data["data"]}
    return {"type": "image", "source": source}


def _thinking(item: Reasoning) -> list[Block]:
    if item.encrypted_content is None:
        return []
    if not item.content:
        return [{"type": "redacted_thinking", "data": item.encrypted_content}]
    text = "".join(part.text for part in item.content)
    return [{"type": "thinking", "thinking": text, "signature": item.encrypted_content}]


def _tool_use(call: FunctionCall) -> Block:
    return {
        "type": "tool_use",
        "id": _tool_id(call.call_id),
        "name": call.name,
        "input": _tool_input(call.arguments),
    }


def _tool_input(arguments: str) -> object:
    """The arguments as they were written, where they are an object.

    Others are wrapped as the guide to fine-grained tool streaming proposes.
    """
    try:
        msgspec.json.decode(arguments or "{}", type=dict[str, object])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {"INVALID_JSON": arguments.encode(errors="replace").decode()}
    return msgspec.Raw((arguments or "{}").encode())


def _tool_result(output: FunctionCallOutput) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": _tool_id(output.call_id)}
    if output.is_error:
        # The API requires content in an error, and only text.
        text = output.text
        return block | {"content": text if text.strip() else "The call failed.", "is_error": True}
    if isinstance(output.output, str):
        return block | ({"content": output.output} if output.output.strip() else {})
    content = _blocks(output.output)
    return block | ({"content": content} if content else {})


def _tool_id(call_id: str) -> str:
    """The id, or a replacement for an id of another provider with characters refused here."""
    if _TOOL_ID.fullmatch(call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode(errors='replace')).hexdigest()[:32]}"
