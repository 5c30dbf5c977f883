"""Text that a person must judge: nothing in it is invisible, and no character moves others."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.cli.open_calls import in_full
from treadle.cli.plain_text import escaped
from treadle.domain.items import FunctionCall


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich 日本 😀 é", "Zürich 日本 😀 é"),
        ("a\x00\x1b[2J\x7f\x9b\r\n\t", r"a\u0000\u001b[2J\u007f\u009b\u000d\u000a\u0009"),
        ("\u202a\u202e\u2066\u2069\u200e\u061c", r"\u202a\u202e\u2066\u2069\u200e\u061c"),
        ("\u200b\u200d\u2060\ufeff\u00ad\u034f", r"\u200b\u200d\u2060\ufeff\u00ad\u034f"),
        ("\u00a0\u2003\u3000\u2028\u2029", r"\u00a0\u2003\u3000\u2028\u2029"),
        ("\u3164\uffa0\u115f\u2800\ufe0f", r"\u3164\uffa0\u115f\u2800\ufe0f"),
        ("\U000e0041\U000e0100\ud800\ue000", r"\U000e0041\U000e0100\ud800\ue000"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=6))
def test_each_argument_is_a_line_from_which_it_can_be_read_back(
    arguments: dict[str, object],
) -> None:
    call = FunctionCall("c", "pay\n", json.dumps(arguments))
    name, *lines = in_full(call)
    assert name == r"pay\u000a"
    assert len(lines) == len(arguments)
    for (argument, value), line in zip(arguments.items(), lines, strict=True):
        assert all(one == " " or unicodedata.category(one)[0] not in "CZ" for one in line)
        assert line.startswith(f"  {escaped(argument)}: ")
        shown = line.removeprefix(f"  {escaped(argument)}: ")
        if "\\U" not in shown:
            assert json.loads(shown) == value


@pytest.mark.parametrize("arguments", ["[1, 2]", '{"a": ', "pay\neverything\u202e", "[" * 100_000])
def test_arguments_that_are_not_an_object_are_shown_in_full(arguments: str) -> None:
    lines = in_full(FunctionCall("c", "pay", arguments))
    assert len(lines) == 2
    assert json.loads(lines[1]) == arguments


def test_a_call_without_arguments_is_one_line() -> None:
    assert in_full(FunctionCall("c", "pay", "")) == ["pay"]
