"""Markdown for a terminal: the same whatever the pieces are, nothing lost, nothing too wide."""

import re
import time
from itertools import pairwise

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.cli.markdown import MAX_SPAN, Markdown
from treadle.cli.wrap import columns


def render(*pieces: str, width: int = 40) -> str:
    written: list[str] = []
    markdown = Markdown(written.append, width)
    for piece in pieces:
        markdown.add(piece)
    markdown.close()
    assert not markdown.is_mid_line
    return "".join(written)


def plain(*pieces: str, width: int = 40) -> str:
    return click.unstyle(render(*pieces, width=width))


MARKS = [*"ab1 *_`#->|[]()!~\\\n.+:x日é🌱", "**", "```", "\n\n", "- ", "[x](y)", "|-|\n"]
TEXT = st.lists(st.sampled_from(MARKS), max_size=60).map("".join)


@given(TEXT, st.data(), st.sampled_from([1, 8, 40]))
def test_the_pieces_do_not_matter(text: str, data: st.DataObject, width: int) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    bounds = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    assert render(*pieces, width=width) == render(text, width=width)


@given(TEXT)
def test_letters_are_shown_in_their_order(text: str) -> None:
    """Marks may be left out, a fence loses its language, and a table may be made narrower."""
    letters = re.compile(r"[^ab1日é🌱]")
    shown = letters.sub("", plain(text, width=400))
    if "```" not in text and "~~~" not in text:
        assert shown == letters.sub("", text)
    else:
        left = iter(letters.sub("", text))
        assert all(one in left for one in shown)


@given(st.lists(st.text("abcé日", min_size=1, max_size=30), max_size=30), st.integers(10, 60))
def test_lines_are_not_wider_than_the_terminal(words: list[str], width: int) -> None:
    for line in plain(" ".join(words), width=width).splitlines():
        assert sum(map(columns, line)) <= width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Title\ntext", "\x1b[1mTitle\x1b[0m\ntext\n"),
        ("a **b** c", "a \x1b[1mb\x1b[0m c\n"),
        ("a *b* c", "a \x1b[3mb\x1b[0m c\n"),
        ("a ~~b~~ c", "a \x1b[9mb\x1b[0m c\n"),
        ("`a*b*`", "\x1b[1ma*b*\x1b[0m\n"),
        ("``a`b``", "\x1b[1ma`b\x1b[0m\n"),
        ("- a\n* b\n  + c\n3) d", "• a\n• b\n  • c\n3) d\n"),
        ("- [ ] a\n- [x] b", "• ☐ a\n• ☑ b\n"),
        ("```py\na **b**\n\n- c\n```\nd", "    a **b**\n\n    - c\nd\n"),
        ("---", "\x1b[2m" + "─" * 40 + "\x1b[0m\n"),
        ("> a", "\x1b[2m│ \x1b[0ma\n"),
        ("[a](http://x/(y))", "\x1b[4ma\x1b[0m \x1b[2m(http://x/(y))\x1b[0m\n"),
        ("[http://x](http://x)", "\x1b[4mhttp://x\x1b[0m\n"),
        ("a\n\n\n\nb", "a\n\nb\n"),
        (r"\*a\*", "*a*\n"),
    ],
)
def test_marks_are_rendered(text: str, shown: str) -> None:
    assert render(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "snake_case_name",
        "2 * 3 * 4",
        "**kwargs and *args",
        "a_b_ c",
        "[1] no link",
        "5 - 3",
        "#tag",
        "x*",
    ],
)
def test_what_is_no_mark_is_shown_as_it_is(text: str) -> None:
    assert render(text) == f"{text}\n"


@pytest.mark.parametrize(
    "text",
    ["`1```", ">+ x", "!!![x](y)", "*** |a.**(~", "#  \\*", "a__b__", "*a**", "~5 and ~~6~~ [1] x"],
)
def test_a_mark_that_the_next_piece_changes(text: str) -> None:
    for at in range(len(text)):
        assert render(text[:at], text[at:]) == render(text)


@pytest.mark.parametrize(
    "text", ["~5 minutes or ", "see [1] and ", "2 * 3 is ", "a_b and ", "wow! so "]
)
def test_what_can_be_no_mark_is_not_held_back(text: str) -> None:
    written: list[str] = []
    Markdown(written.append, 40).add(text)
    assert "".join(written) == text.rstrip()


def test_a_table() -> None:
    assert plain("|a|b|\n|-|:-:|\n|1|long `x`|\n|22|日|\n\nend") == (
        "a   b\n──  ──────\n1   long x\n22  日\n\nend\n"
    )
    wide = f"|a|b|\n|-|-|\n|1|{'x' * 60}|"
    assert plain(wide).replace("\n", "") == wide.replace("\n", "")


def test_lists_and_quotes_are_indented_where_they_wrap() -> None:
    words = "one two three four five"
    assert plain(f"- {words}", width=24) == "• one two three four\n  five\n"
    assert plain(f"> {words}", width=24) == "│ one two three four\n│ five\n"


def test_words_are_written_as_they_arrive() -> None:
    written: list[str] = []
    markdown = Markdown(written.append, 40)
    markdown.add("Hello the")
    assert "".join(written) == "Hello"
    markdown.add("re **bo")
    assert "".join(written) == "Hello there"
    markdown.add("ld** and ")
    assert click.unstyle("".join(written)) == "Hello there bold and"


def test_a_mark_without_an_end_is_held_back_up_to_a_bound() -> None:
    written: list[str] = []
    markdown = Markdown(written.append, 40)
    markdown.add("**" + "a " * MAX_SPAN)
    assert "".join(written).startswith("**a a")


@pytest.mark.parametrize("mark", ["**a ", "|", "- "])
def test_many_marks_cost_in_proportion(mark: str) -> None:
    def seconds(count: int) -> float:
        def once() -> float:
            start = time.process_time()
            plain(mark * count)
            return time.process_time() - start

        return min(once() for _ in range(3))

    assert seconds(20_000) < 8 * seconds(5_000)  # it is 16 times as much if each looks at all
