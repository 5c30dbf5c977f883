import re

from hypothesis import given
from hypothesis import strategies as st

from treadle.mcp.names import tool_names


def test_what_providers_take_stays() -> None:
    assert tool_names(["read_file", "a-B-9"], "") == {"read_file": "read_file", "a-B-9": "a-B-9"}
    assert tool_names(["read"], "files_") == {"read": "files_read"}


def test_other_characters_become_underscores() -> None:
    assert tool_names(["a.b/c", "übung"], "") == {"a.b/c": "a_b_c", "übung": "_bung"}


def test_names_that_would_be_the_same_are_told_apart() -> None:
    names = tool_names(["a.b", "a_b", "a/b"], "")
    assert names["a_b"] == "a_b"
    assert re.fullmatch(r"a_b_[0-9a-f]{8}", names["a.b"])
    assert len(set(names.values())) == 3
    assert tool_names(["a/b", "a.b", "a_b"], "") == names


def test_long_names_are_cut() -> None:
    names = tool_names(["x" * 128, "x" * 127], "p_")
    assert all(len(name) == 64 and name.startswith("p_xx") for name in names.values())
    assert len(set(names.values())) == 2


@given(st.lists(st.text(max_size=80)), st.from_regex(r"[a-zA-Z0-9_-]{0,32}", fullmatch=True))
def test_every_tool_has_a_name_of_its_own(given: list[str], prefix: str) -> None:
    names = tool_names(given, prefix)
    assert names.keys() == set(given)
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names.values())
