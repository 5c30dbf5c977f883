"""What agents remember, and what they read of a conversation.

An agent reads its blocks before each step, and its model edits them with tools. The archive finds
what has left the window:

    Agent(
        "openai:gpt-5",
        blocks=[Block("human")],
        context=Summarize(),
        tools=[*block_tools(), *archive_tools()],
    )
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

if TYPE_CHECKING:
    from treadle.domain.blocks import (
        AppendText,
        Block,
        BlockEdit,
        ConfigureBlock,
        CreateBlock,
        DeleteBlock,
        InsertText,
        ReplaceText,
        RewriteBlock,
    )
    from treadle.domain.passages import By, Found, Passage
    from treadle.memory.archive.embedders import (
        CallableEmbedder,
        Embedder,
        EmbedFunction,
        HashingEmbedder,
    )
    from treadle.memory.archive.local_embedder import LocalEmbedder
    from treadle.memory.archive.openai_embedder import OpenAIEmbedder
    from treadle.memory.archive.pages import Statistics
    from treadle.memory.archive.query import Moment
    from treadle.memory.archive.resolve_embedder import resolve_embedder
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
    "AppendText",
    "Block",
    "BlockEdit",
    "By",
    "CallableEmbedder",
    "ConfigureBlock",
    "ContextStrategy",
    "CreateBlock",
    "DeleteBlock",
    "EmbedFunction",
    "Embedder",
    "Found",
    "HashingEmbedder",
    "InsertText",
    "LocalEmbedder",
    "Moment",
    "NoCompaction",
    "OpenAIEmbedder",
    "Passage",
    "ReplaceText",
    "RewriteBlock",
    "SleepAgent",
    "SlidingWindow",
    "Statistics",
    "Summarize",
    "archive_tools",
    "block_tools",
    "resolve_embedder",
]

_MODULES = {
    "AppendText": "treadle.domain.blocks",
    "Block": "treadle.domain.blocks",
    "BlockEdit": "treadle.domain.blocks",
    "By": "treadle.domain.passages",
    "CallableEmbedder": "treadle.memory.archive.embedders",
    "ConfigureBlock": "treadle.domain.blocks",
    "ContextStrategy": "treadle.memory.compaction.strategies",
    "CreateBlock": "treadle.domain.blocks",
    "DeleteBlock": "treadle.domain.blocks",
    "EmbedFunction": "treadle.memory.archive.embedders",
    "Embedder": "treadle.memory.archive.embedders",
    "Found": "treadle.domain.passages",
    "HashingEmbedder": "treadle.memory.archive.embedders",
    "InsertText": "treadle.domain.blocks",
    "LocalEmbedder": "treadle.memory.archive.local_embedder",
    "Moment": "treadle.memory.archive.query",
    "NoCompaction": "treadle.memory.compaction.strategies",
    "OpenAIEmbedder": "treadle.memory.archive.openai_embedder",
    "Passage": "treadle.domain.passages",
    "ReplaceText": "treadle.domain.blocks",
    "RewriteBlock": "treadle.domain.blocks",
    "SleepAgent": "treadle.memory.sleep",
    "SlidingWindow": "treadle.memory.compaction.strategies",
    "Statistics": "treadle.memory.archive.pages",
    "Summarize": "treadle.memory.compaction.strategies",
    "archive_tools": "treadle.memory.archive.tools",
    "block_tools": "treadle.memory.blocks.tools",
    "resolve_embedder": "treadle.memory.archive.resolve_embedder",
}


def __getattr__(name: str) -> object:
    # Imported when first named: some of these modules are slow to import.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
