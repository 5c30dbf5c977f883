"""What agents remember: memory blocks, and the tools with which a model edits them.

An agent reads its blocks before each step, and its model edits them with tools:

    Agent("openai:gpt-5", blocks=[Block("human")], tools=block_tools())
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.blocks import Block
    from weft.memory.block_tools import block_tools

__all__ = ["Block", "block_tools"]

_MODULES = {
    "Block": "weft.blocks",
    "block_tools": "weft.memory.block_tools",
}


def __getattr__(name: str) -> object:
    # Imported when first named: some of these modules are heavy, and few programs need all.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
