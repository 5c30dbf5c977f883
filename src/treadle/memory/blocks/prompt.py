"""Renders memory blocks as a part of the instructions of the model."""

import re
from collections.abc import Iterable
from functools import lru_cache

from treadle.domain.blocks import Block

# Everything that a model could read as the start or the end of a block, in any case and with any
# characters between the bracket and the word, such as `</ BLOCK`.
_TAG = re.compile(r"<(?=[^\w<]*(?:block|memory))", re.IGNORECASE)
# How many rendered blocks are cached; a block that has not changed is not rendered again.
_KEPT = 256
_ATTRIBUTE = str.maketrans(
    {
        "&": "&amp;",
        '"': "&quot;",
        "<": "&lt;",
        ">": "&gt;",
        "\t": "&#9;",
        "\n": "&#10;",
        "\r": "&#13;",
    }
)


def compile_blocks(blocks: Iterable[Block]) -> str:
    r"""Returns the blocks as one text, in their order; empty without blocks.

    Each block is an element with its label, its description and its size, around its text. In the
    text, only `</block>` and the like are changed, to `<\/block>`, so that a text cannot pretend to
    be another block. The same blocks give the same bytes, which keeps the prompt cache of providers
    valid.
    """
    compiled = "".join([_element(block) for block in blocks])
    return f"<memory>\n{compiled}</memory>" if compiled else ""


@lru_cache(maxsize=_KEPT)
def _element(block: Block) -> str:
    value = block.value
    if "<" in value:
        value = _TAG.sub(r"<\\", value)
    attributes = f'label="{block.label}"'
    if block.description:
        attributes += f' description="{block.description.translate(_ATTRIBUTE)}"'
    attributes += f' chars="{len(block.value)} of {block.limit}"'
    if block.read_only:
        attributes += ' read_only="true"'
    if block.shared:
        attributes += f' shared="{block.shared.translate(_ATTRIBUTE)}"'
    return f"<block {attributes}>\n{value}\n</block>\n"
