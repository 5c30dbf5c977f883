"""Estimates of tokens."""

import msgspec
import pytest

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.errors import ConfigurationError
from treadle.memory.compaction.tokens import (
    IMAGE_TOKENS,
    ITEM_TOKENS,
    SMALL_IMAGE_TOKENS,
    frame_tokens,
    item_tokens,
    items_tokens,
    text_tokens,
)
from treadle.models.base import ModelRequest


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("漢字", 2), ("é" * 3, 2), ("\ud800", 1)],
)
def test_a_text_is_a_third_of_its_bytes(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


@pytest.mark.parametrize(
    ("item", "tokens", "counted"),
    [
        (Message("user", (InputText("one two"), InputText("three"))), 5, 3),
        (Message("assistant", (OutputText("one"), Refusal("two"))), 2, 2),
        (
            Message("user", (InputImage("data:"), InputImage("data:", "low"))),
            IMAGE_TOKENS + SMALL_IMAGE_TOKENS,
            IMAGE_TOKENS + SMALL_IMAGE_TOKENS,
        ),
        (FunctionCall("c", "look", '{"a": 1}'), 4, 2),
        (FunctionCall("c", "look", '{"a": "é"}'), 5, 2),
        (FunctionCallOutput("c", "one two"), 3, 2),
        (FunctionCallOutput("c", (InputText("one"), InputImage("d", "low"))), 101, 101),
        (Reasoning(content=(ReasoningText("one two"),)), 3, 2),
        (Reasoning(encrypted_content="abcdef"), 2, 1),
        (ProviderItem("p", msgspec.Raw(b'{"a":1}')), 3, 1),
    ],
)
def test_items(item: object, tokens: int, counted: int) -> None:
    assert item_tokens(item) == tokens + ITEM_TOKENS  # type: ignore[arg-type]
    assert item_tokens(item, words) == counted + ITEM_TOKENS  # type: ignore[arg-type]
    assert items_tokens([item]) == [tokens + ITEM_TOKENS]  # type: ignore[list-item]
    assert items_tokens([item], words) == [counted + ITEM_TOKENS]  # type: ignore[list-item]


def test_the_frame_is_instructions_tools_and_output() -> None:
    plain = ModelRequest(items=(), instructions="one two")
    assert frame_tokens(plain, words) == ITEM_TOKENS + 2
    tool = ToolSchema("look", "Looks.", {"type": "object"}, strict=True)
    output = OutputSchema("answer", {"type": "object"}, strict=True)
    full = ModelRequest(items=(), instructions="one two", tools=(tool, tool), output=output)
    assert frame_tokens(full) > frame_tokens(plain) + 3 * ITEM_TOKENS + 30


@pytest.mark.parametrize("answer", ["seven", -1, 1.5, None])
def test_a_tokenizer_must_count(answer: object) -> None:
    with pytest.raises(ConfigurationError, match="number of tokens"):
        text_tokens("x", lambda _: answer)  # type: ignore[arg-type, return-value]


def test_a_tokenizer_that_fails() -> None:
    def broken(text: str) -> int:
        raise LookupError("no vocabulary")

    with pytest.raises(ConfigurationError, match="LookupError: no vocabulary"):
        text_tokens("x", broken)
