"""What agents remember: what of a conversation fits into the window of a model.

Agent("openai:gpt-5", context=Summarize())
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.compaction.strategies import (
        ContextStrategy,
        NoCompaction,
        SlidingWindow,
        Summarize,
    )

__all__ = ["ContextStrategy", "NoCompaction", "SlidingWindow", "Summarize"]

_MODULES = {
    "ContextStrategy": "weft.compaction.strategies",
    "NoCompaction": "weft.compaction.strategies",
    "SlidingWindow": "weft.compaction.strategies",
    "Summarize": "weft.compaction.strategies",
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
