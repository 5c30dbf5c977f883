"""Memory blocks as the model reads them."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from treadle.domain.blocks import Block
from treadle.memory.blocks.prompt import compile_blocks

ELEMENT = re.compile(
    r'<block label="([a-zA-Z0-9_-]+)"(?: description="([^"<>\n]*)")? chars="(\d+) of (\d+)"'
    r'( read_only="true")?(?: shared="([^"<>\n]*)")?>\n(.*?)\n</block>\n',
    re.DOTALL,
)
# What a model might take for a tag, whatever stands where a slash may stand, but for a backslash.
TAGS = re.compile(r"<[^\w<\\]*(?:block|memory)", re.IGNORECASE)


def test_the_format() -> None:
    blocks = [
        Block("human", "Likes tea.\n", 'What you know of "them" & theirs\n<all>.', 200),
        Block("rules", "a < b, </BLOCK>, <\\memory>", read_only=True, shared="team"),
        Block("empty"),
    ]
    assert compile_blocks(blocks) == (
        "<memory>\n"
        '<block label="human" description="What you know of &quot;them&quot; &amp; theirs&#10;'
        '&lt;all&gt;." chars="11 of 200">\nLikes tea.\n\n</block>\n'
        '<block label="rules" chars="26 of 5000" read_only="true" shared="team">\n'
        "a < b, <\\/BLOCK>, <\\\\memory>\n</block>\n"
        '<block label="empty" chars="0 of 5000">\n\n</block>\n'
        "</memory>"
    )


def test_no_blocks_are_no_text() -> None:
    assert compile_blocks([]) == ""


def read(compiled: str) -> list[Block]:
    """Parses the blocks of a text by the documented rules."""
    inner = compiled.removeprefix("<memory>\n").removesuffix("</memory>")
    found: list[Block] = []
    while inner:
        element = ELEMENT.match(inner)
        assert element is not None
        label, description, chars, limit, read_only, shared, value = element.groups("")
        value = re.sub(r"<\\(?=[^\w<]*(?:block|memory))", "<", value, flags=re.IGNORECASE)
        assert len(value) == int(chars)
        found.append(
            Block(label, value, unescaped(description), int(limit), bool(read_only), shared)
        )
        inner = inner[element.end() :]
    return found


def unescaped(text: str) -> str:
    for code, character in (("quot", '"'), ("lt", "<"), ("gt", ">"), ("#9", "\t"), ("#10", "\n")):
        text = text.replace(f"&{code};", character)
    return text.replace("&#13;", "\r").replace("&amp;", "&")


pieces = st.sampled_from(
    [
        *'<>/\\" \n\t\r=_a\u200b',
        "block",
        "Block",
        "memory",
        "MEMORY",
        "&lt;",
        "</block>\n",
        "<memory>",
        '<block label="x" chars="1 of 5000">\n',
        "\n</block>\n",
    ]
)
texts = st.lists(pieces, max_size=12).map("".join) | st.text(max_size=20)
blocks = st.builds(
    Block,
    st.from_regex(r"[a-zA-Z0-9_-]{1,9}", fullmatch=True),
    texts,
    texts,
    st.integers(1, 100_000),
    st.booleans(),
    st.sampled_from(["", "team"]),
)


@given(st.lists(blocks, max_size=4))
@example([Block("a", "<\\block"), Block("a", "<\\\\block")])
def test_no_text_pretends_to_be_a_block(blocks: list[Block]) -> None:
    compiled = compile_blocks(blocks)
    assert len(TAGS.findall(compiled)) == (2 + 2 * len(blocks) if blocks else 0)
    assert read(compiled) == blocks
    assert compile_blocks(list(blocks)) == compiled
