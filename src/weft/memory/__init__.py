"""What agents remember, and what of a conversation they read.

An agent reads its blocks before each step, and its model edits them with tools:

    Agent("openai:gpt-5", blocks=[Block("human")], tools=block_tools(), context=Summarize())
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.blocks import Block
    from weft.compaction.strategies import (
        ContextStrategy,
        NoCompaction,
        SlidingWindow,
        Summarize,
    )
    from weft.memory.block_tools import block_tools
    from weft.sleep import SleepAgent

__all__ = [
    "Block",
    "ContextStrategy",
    "NoCompaction",
    "SleepAgent",
    "SlidingWindow",
    "Summarize",
    "block_tools",
]

_MODULES = {
    "Block": "weft.blocks",
    "ContextStrategy": "weft.compaction.strategies",
    "NoCompaction": "weft.compaction.strategies",
    "SleepAgent": "weft.sleep",
    "SlidingWindow": "weft.compaction.strategies",
    "Summarize": "weft.compaction.strategies",
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
