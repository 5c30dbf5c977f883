"""Renders a part of a conversation as text, for models that summarize it or learn from it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from treadle.domain.hosted_tools import remote_call_name
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputPart,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)
from treadle.memory.compaction.tokens import Count, text_tokens


def transcript(items: Iterable[Item]) -> str:
    """Returns the messages, calls and outputs as text, without reasoning."""
    names: dict[str, str] = {}
    paragraphs = (_paragraph(item, names) for item in items)
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def portion(items: Iterable[Item], most: int) -> tuple[str, int]:
    """Returns a transcript of at most `most` characters, and the number of items it covers.

    It covers at least one item, whose end is left out if the item alone is longer.
    """
    names: dict[str, str] = {}
    told: list[str] = []
    size = count = 0
    for item in items:
        paragraph = _paragraph(item, names)
        if paragraph:
            size += len(paragraph) + 2
            if told and size - 2 > most:
                break
            told.append(paragraph)
        count += 1
    text = "\n\n".join(told)
    if len(text) > most:
        text = f"{text[:most]}\n[{len(text) - most} characters are left out here]"
    return text, count


def mark_of(*texts: str) -> str:
    """Returns a mark that delimits texts.

    It is a hash of the texts, so a text cannot contain its own mark and pretend to end early.
    """
    joined = "\0".join(texts)
    return hashlib.sha256(joined.encode(errors="replace")).hexdigest()[:8]


def marked(mark: str, name: str, text: str) -> str:
    """Returns a text between marks, for a model that must not follow instructions in it."""
    return f"--- {mark} {name} ---\n{text}\n--- {mark} end of {name} ---"


def pieces(text: str, most: int, count: Count | None = None) -> Iterator[str]:
    """Splits a text so that no piece has more than `most` tokens, between paragraphs if it can."""
    piece: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        for part in _parts(paragraph, most, count):
            tokens = text_tokens(part, count) + 1
            if piece and size + tokens > most:
                yield "\n\n".join(piece)
                piece, size = [], 0
            piece.append(part)
            size += tokens
    yield "\n\n".join(piece)


def _paragraph(item: Item, names: dict[str, str]) -> str:
    match item:
        case Message():
            return f"{item.role}: {_content(item)}"
        case FunctionCall():
            names[item.call_id] = item.name
            return f"tool call: {item.name} {item.arguments}"
        case FunctionCallOutput():
            failed = " (failed)" if item.is_error else ""
            media = "" if isinstance(item.output, str) else _media(item.output)
            name = names.get(item.call_id, "tool")
            return f"output of {name}{failed}: {item.text}{media}"
        case ProviderItem():
            return _hosted(item.call)
        case Reasoning():
            return ""
        case _ as unreachable:
            assert_never(unreachable)


def _hosted(call: HostedCall | None) -> str:
    """Returns a call of a hosted tool once its result is known."""
    if call is None or call.status == "in_progress":
        return ""
    name = remote_call_name(call.server, call.name) if call.server else call.tool
    return f"{name} {call.arguments}: {call.output}"


def _content(message: Message) -> str:
    texts: list[str] = []
    for part in message.content:
        match part:
            case InputText() | OutputText():
                texts.append(part.text)
            case Refusal():
                texts.append(part.refusal)
            case InputImage() | InputFile() | InputAudio():
                texts.append(_mark(part))
            case _ as unreachable:
                assert_never(unreachable)
    return " ".join(texts)


def _media(output: Sequence[OutputPart]) -> str:
    return "".join(f" {_mark(part)}" for part in output if not isinstance(part, InputText))


def _mark(part: InputImage | InputFile | InputAudio) -> str:
    match part:
        case InputImage():
            return "[image]"
        case InputFile():
            return f"[file {part.filename}]" if part.filename else "[file]"
        case InputAudio():
            return "[audio]"


def _parts(text: str, most: int, count: Count | None) -> list[str]:
    """Halves a text until each part has at most `most` tokens."""
    if text_tokens(text, count) <= most or len(text) < 2:
        return [text]
    middle = len(text) // 2
    return [*_parts(text[:middle], most, count), *_parts(text[middle:], most, count)]
