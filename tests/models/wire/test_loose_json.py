import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.models.wire.loose_json import (
    HalfCharacters,
    count_of,
    fields_of,
    joined,
    list_of,
    read_json,
    string_of,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (0, 0),
        (-1, None),
        (True, None),
        (None, None),
        ("", None),
        ("3.5", None),
        ("-1", None),
        ("9" * 5000, None),
        ("٣", None),
        (math.inf, None),
        (math.nan, None),
        (2**80, None),
        ([], None),
    ],
)
def test_counts(value: object, count: int | None) -> None:
    assert count_of(value) == count


def test_other_values() -> None:
    assert (string_of("a"), string_of(5), string_of(1.5), string_of(True)) == ("a", "5", "1.5", "")
    assert (list_of([1]), list_of(None), list_of("a")) == ([1], (), ("a",))
    assert (fields_of({"a": 1}), fields_of([1]), fields_of(None)) == ({"a": 1}, {}, {})
    assert read_json(b'{"a": "\xff\n"}') == {"a": "\ufffd\n"}


@given(st.text(alphabet=["a", "\ud83d", "\udd11", "\U0001f511"], max_size=12), st.data())
def test_halves_are_joined_wherever_a_text_is_cut(text: str, data: st.DataObject) -> None:
    halves = HalfCharacters()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    edges = [0, *cuts, len(text)]
    pieces = [halves.join("k", text[a:b]) for a, b in itertools.pairwise(edges)]
    whole = "".join([*pieces, *(rest for _, rest in halves.rest())])
    whole.encode()
    assert whole == joined(text)
    assert not list(halves.rest())
