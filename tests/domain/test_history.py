import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.history import History, require_valid
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    user_message,
)
from treadle.errors import InvalidInput


def said(text: str) -> Message:
    return Message("assistant", (OutputText(text),), text)


@given(st.lists(st.tuples(st.integers(0, 20), st.lists(st.text(max_size=3), max_size=3))))
def test_versions_never_change_each_other(growth: list[tuple[int, list[str]]]) -> None:
    versions: list[tuple[History, list[Item]]] = [(History(), [])]
    for pick, texts in growth:
        history, items = versions[pick % len(versions)]
        added = [said(text) for text in texts]
        versions.append((history.extended(added), [*items, *added]))
    for history, items in versions:
        assert list(history) == items
        assert len(history) == len(items)
        assert history == History(items)


def test_indexing_stays_within_the_version() -> None:
    first = History([said("a"), said("b")])
    second = first.extended([said("c")])
    assert first[-1] == said("b")
    assert second[0] == said("a")
    assert second[1:] == [said("b"), said("c")]
    assert first[1:] == [said("b")]
    with pytest.raises(IndexError):
        first[2]
    assert first.extended([]) is first
    assert first != [said("a"), said("b")]
    assert repr(History()) == "History([])"


CALL = FunctionCall("c1", "look", "{}")
OUTPUT = FunctionCallOutput("c1", "seen")


@pytest.mark.parametrize(
    "items",
    [
        [],
        [user_message("hi"), said("hello")],
        [Reasoning(id="r"), said("looking"), CALL, OUTPUT, said("done"), user_message("thanks")],
        [CALL, FunctionCall("c2", "look", "{}"), FunctionCallOutput("c2", "b"), OUTPUT],
    ],
)
def test_valid_histories(items: list[Item]) -> None:
    require_valid(items)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([CALL], "no output for the call 'c1' of look"),
        ([CALL, user_message("hi"), OUTPUT], "no output"),
        ([OUTPUT], "is not an open call"),
        ([CALL, OUTPUT, OUTPUT], "is not an open call"),
        ([CALL, OUTPUT, CALL], "two calls with the id"),
    ],
)
def test_invalid_histories(items: list[Item], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        require_valid(items)
