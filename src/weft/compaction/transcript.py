"""A part of a conversation as text, for the model that writes its summary."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from weft.compaction.tokens import Count, text_tokens
from weft.items import (
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


def transcript(items: Iterable[Item]) -> str:
    """Returns what was said and done; what a model thought is left out."""
    names: dict[str, str] = {}
    return "\n\n".join(_paragraphs(items, names))


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


def _paragraphs(items: Iterable[Item], names: dict[str, str]) -> Iterator[str]:
    for item in items:
        match item:
            case Message():
                yield f"{item.role}: {_content(item)}"
            case FunctionCall():
                names[item.call_id] = item.name
                yield f"tool call: {item.name} {item.arguments}"
            case FunctionCallOutput():
                failed = " (failed)" if item.is_error else ""
                images = " [image]" if not isinstance(item.output, str) else ""
                name = names.get(item.call_id, "tool")
                yield f"output of {name}{failed}: {item.text}{images}"
            case Reasoning() | ProviderItem():
                pass
            case _ as unreachable:
                assert_never(unreachable)


def _content(message: Message) -> str:
    texts: list[str] = []
    for part in message.content:
        match part:
            case InputText() | OutputText():
                texts.append(part.text)
            case Refusal():
                texts.append(part.refusal)
            case InputImage():
                texts.append("[image]")
            case _ as unreachable:
                assert_never(unreachable)
    return " ".join(texts)


def _parts(text: str, most: int, count: Count | None) -> list[str]:
    """Halves a text until each part has at most `most` tokens."""
    if text_tokens(text, count) <= most or len(text) < 2:
        return [text]
    middle = len(text) // 2
    return [*_parts(text[:middle], most, count), *_parts(text[middle:], most, count)]
