"""What agents remember, and what of a conversation they read.

An agent reads its blocks before each step, and its model edits them with tools; what leaves its
window it finds again in the archive:

    Agent(
        "openai:gpt-5",
        blocks=[Block("human")],
        context=Summarize(),
        tools=[*block_tools(), *archive_tools()],
    )
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.domain.blocks import Block
    from weft.domain.passages import Found, Passage
    from weft.memory.archive.embedder import CallableEmbedder, Embedder
    from weft.memory.archive.hashing import HashingEmbedder
    from weft.memory.archive.openai import OpenAIEmbedder
    from weft.memory.archive.tools import archive_tools
    from weft.memory.blocks.tools import block_tools
    from weft.memory.compaction.strategies import (
        ContextStrategy,
        NoCompaction,
        SlidingWindow,
        Summarize,
    )
    from weft.memory.sleep import SleepAgent

__all__ = [
    "Block",
    "CallableEmbedder",
    "ContextStrategy",
    "Embedder",
    "Found",
    "HashingEmbedder",
    "NoCompaction",
    "OpenAIEmbedder",
    "Passage",
    "SleepAgent",
    "SlidingWindow",
    "Summarize",
    "archive_tools",
    "block_tools",
]

_MODULES = {
    "Block": "weft.domain.blocks",
    "CallableEmbedder": "weft.memory.archive.embedder",
    "ContextStrategy": "weft.memory.compaction.strategies",
    "Embedder": "weft.memory.archive.embedder",
    "Found": "weft.domain.passages",
    "HashingEmbedder": "weft.memory.archive.hashing",
    "NoCompaction": "weft.memory.compaction.strategies",
    "OpenAIEmbedder": "weft.memory.archive.openai",
    "Passage": "weft.domain.passages",
    "SleepAgent": "weft.memory.sleep",
    "SlidingWindow": "weft.memory.compaction.strategies",
    "Summarize": "weft.memory.compaction.strategies",
    "archive_tools": "weft.memory.archive.tools",
    "block_tools": "weft.memory.blocks.tools",
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
