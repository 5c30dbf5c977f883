"""Texts on their way into the archive."""

import pytest

from treadle.errors import InvalidInput
from treadle.memory.archive.new_passages import MAX_CHARS, new_passage


def test_what_may_be_put_in() -> None:
    passage = new_passage("p", "text", ["a", "b", "a"], 5.0)
    assert (passage.id, passage.text, passage.tags, passage.created_at) == (
        "p", "text", ("a", "b"), 5.0
    )  # fmt: skip
    assert new_passage("p", "x" * MAX_CHARS).tags == ()


@pytest.mark.parametrize(
    ("text", "tags", "at", "says"),
    [
        (" \n", [], None, "empty"),
        ("x" * (MAX_CHARS + 1), [], None, "100000; split"),
        ("\ud800", [], None, "not valid UTF-8"),
        ("x", "tag", None, "list of texts"),
        ("x", ["t"] * 51, None, "51 tags"),
        ("x", [" "], None, "from 1 to 200"),
        ("x", ["t" * 201], None, "from 1 to 200"),
        ("x", ["\udfff"], None, "not valid UTF-8"),
        ("x", ["a\0b"], None, "no NUL"),
        ("x", [], float("nan"), "number of seconds"),
    ],
)
def test_what_is_refused(text: str, tags: list[str], at: float | None, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        new_passage("p", text, tags, at)
