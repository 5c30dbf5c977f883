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
    from weft.archive.embedder import CallableEmbedder, Embedder
    from weft.archive.hashing import HashingEmbedder
    from weft.archive.openai import OpenAIEmbedder
    from weft.blocks import Block
    from weft.compaction.strategies import ContextStrategy, NoCompaction, SlidingWindow, Summarize
    from weft.memory.archive_tools import archive_tools
    from weft.memory.block_tools import block_tools
    from weft.passages import Found, Passage
    from weft.sleep import SleepAgent

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
    "Block": "weft.blocks",
    "CallableEmbedder": "weft.archive.embedder",
    "ContextStrategy": "weft.compaction.strategies",
    "Embedder": "weft.archive.embedder",
    "Found": "weft.passages",
    "HashingEmbedder": "weft.archive.hashing",
    "NoCompaction": "weft.compaction.strategies",
    "OpenAIEmbedder": "weft.archive.openai",
    "Passage": "weft.passages",
    "SleepAgent": "weft.sleep",
    "SlidingWindow": "weft.compaction.strategies",
    "Summarize": "weft.compaction.strategies",
    "archive_tools": "weft.memory.archive_tools",
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
