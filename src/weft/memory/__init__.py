"""What agents remember: an archive of texts and conversations, and the tools to use it.

agent = Agent("openai:gpt-5", tools=[*archive_tools()])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.archive.embedder import CallableEmbedder, Embedder
    from weft.archive.hashing import HashingEmbedder
    from weft.archive.openai import OpenAIEmbedder
    from weft.memory.archive_tools import archive_tools
    from weft.passages import Found, Passage

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "Found",
    "HashingEmbedder",
    "OpenAIEmbedder",
    "Passage",
    "archive_tools",
]

_MODULES = {
    "CallableEmbedder": "weft.archive.embedder",
    "Embedder": "weft.archive.embedder",
    "Found": "weft.passages",
    "HashingEmbedder": "weft.archive.hashing",
    "OpenAIEmbedder": "weft.archive.openai",
    "Passage": "weft.passages",
    "archive_tools": "weft.memory.archive_tools",
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
