"""Memory blocks as the model reads them: a part of its instructions."""

import re
from collections.abc import Iterable
from functools import lru_cache

from treadle.domain.blocks import Block

# What could be read as the beginning or the end of a block, in whatever case and with whatever
# stands between the bracket and the word.
_TAG = re.compile(r"<(?=[^\w<]*(?:block|memory))", re.IGNORECASE)
# How many blocks are kept compiled; those that did not change are found by their identity.
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
    r"""Returns the blocks as one text, in their order; empty where there are none.

    Each is an element with its label, its description and how much of its limit is used, and holds
    its text as it is. Only where a text would begin or end a block is it changed: `</block>` in it
    is written `<\/block>`, so that no text can pretend to be another block. The same blocks give
    the same text to the byte, so that providers find it in their prompt caches.
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
