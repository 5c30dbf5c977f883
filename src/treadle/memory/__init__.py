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
    from treadle.domain.blocks import Block
    from treadle.domain.passages import Found, Passage
    from treadle.memory.archive.embedder import CallableEmbedder, Embedder
    from treadle.memory.archive.hashing import HashingEmbedder
    from treadle.memory.archive.openai import OpenAIEmbedder
    from treadle.memory.archive.tools import archive_tools
    from treadle.memory.blocks.tools import block_tools
    from treadle.memory.compaction.strategies import (
        ContextStrategy,
        NoCompaction,
        SlidingWindow,
        Summarize,
    )
    from treadle.memory.sleep import SleepAgent

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
    "Block": "treadle.domain.blocks",
    "CallableEmbedder": "treadle.memory.archive.embedder",
    "ContextStrategy": "treadle.memory.compaction.strategies",
    "Embedder": "treadle.memory.archive.embedder",
    "Found": "treadle.domain.passages",
    "HashingEmbedder": "treadle.memory.archive.hashing",
    "NoCompaction": "treadle.memory.compaction.strategies",
    "OpenAIEmbedder": "treadle.memory.archive.openai",
    "Passage": "treadle.domain.passages",
    "SleepAgent": "treadle.memory.sleep",
    "SlidingWindow": "treadle.memory.compaction.strategies",
    "Summarize": "treadle.memory.compaction.strategies",
    "archive_tools": "treadle.memory.archive.tools",
    "block_tools": "treadle.memory.blocks.tools",
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
