import re

import msgspec
import pytest

from treadle.domain.ids import id_of, new_id
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
    message,
    user_message,
)
from treadle.domain.usage import Price, Usage
from treadle.errors import InvalidInput


def test_items_survive_json() -> None:
    items: list[Item] = [
        user_message("hi"),
        Message("assistant", (OutputText("a"), Refusal("no"))),
        Reasoning(id="r", summary=(SummaryText("s"),), encrypted_content="x", provider="openai"),
        FunctionCall("c", "look", '{"a": 1}', "i"),
        FunctionCallOutput("c", (InputText("t"), InputImage("https://x/y.png", "low")), "o"),
    ]
    encoded = msgspec.json.encode(items)
    assert msgspec.json.decode(encoded, type=list[Item]) == items


def test_texts_of_items() -> None:
    both = Message("assistant", (OutputText("a"), Refusal("no"), OutputText("b")))
    assert (both.text, both.refusal) == ("ab", "no")
    assert Reasoning(summary=(SummaryText("a"), SummaryText("b"))).text == "a\n\nb"
    assert Reasoning(content=(ReasoningText("a"),), summary=(SummaryText("b"),)).text == "a"
    assert FunctionCallOutput("c", "text").text == "text"
    assert FunctionCallOutput("c", (InputImage("u"), InputText("t"))).text == "t"


@pytest.mark.parametrize("empty", ["", "  \n", [], [InputText(" ")]])
def test_empty_message_is_refused(empty: str | list[InputText]) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        user_message(empty)


def test_an_image_alone_is_a_message() -> None:
    assert user_message([InputImage("data:image/png;base64,iVBORw0KGgo=")]).text == ""


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(InvalidInput, match="UTF-8 at character 1"):
        user_message("a\udcff")


def test_messages_of_the_assistant_hold_output() -> None:
    assert message("assistant", "hi").content == (OutputText("hi"),)
    assert message("developer", "hi").content == (InputText("hi"),)


def test_ids_sort_by_time_and_differ() -> None:
    ids = [new_id("run") for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == len("run_") + 26 and i.startswith("run_") for i in ids)
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)


def test_usage_adds_and_costs() -> None:
    usage = Usage(1_000_000, 500_000, 400_000, 10, 1) + Usage(1, 2, 3, 4, 5)
    assert usage == Usage(1_000_001, 500_002, 400_003, 14, 6)
    assert usage.total_tokens == 1_500_003
    written = Usage(cache_write_tokens=2) + Usage(cache_write_tokens=3)
    assert written == Usage(cache_write_tokens=5)
    cached = Usage(1_000_000, 0, 400_000, cache_write_tokens=200_000)
    assert Price(input=1, output=10).cost(cached) == 1
    price = Price(input=1, output=10, cached_input=0.5, cache_write=1.25)
    assert price.cost(cached) == pytest.approx(0.85)
    assert Price(input=1, output=10).cost(Usage(1_000_000, 500_000, 400_000)) == 6
    assert Price(input=1, output=10, cached_input=0.5).cost(
        Usage(1_000_000, 500_000, 400_000)
    ) == pytest.approx(5.8)


def test_who_names_the_same_gets_the_same_identifier() -> None:
    one = id_of("run", "thread_1", "key")
    assert one == id_of("run", "thread_1", "key")
    assert len({one, id_of("run", "thread_1k", "ey"), id_of("run", "key", "thread_1")}) == 3
    assert re.fullmatch(r"run_[0-7][0-9a-hjkmnp-tv-z]{25}", one)
    assert re.fullmatch(r"run_[0-7][0-9a-hjkmnp-tv-z]{25}", new_id("run"))
