"""The runtime without asyncio: for Flask, views of Django, scripts and notebooks.

    with treadle.sync.open("sqlite:///treadle.db", agents=[agent]) as runtime:
        thread = runtime.create_thread(agent)
        for text in thread.send("Hello").text_stream():
            print(text, end="")

`Client` is the same for a server. The classes have the methods of those of the same name in
`treadle`, with the same parameters; they wait instead of being awaited. Streams are generators.
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name
from treadle.sync.archive import Archive
from treadle.sync.files import Files
from treadle.sync.memory import Memory
from treadle.sync.runtime import Runtime, RuntimeView
from treadle.sync.runtime import open as open
from treadle.sync.subscriptions import (
    DeskSubscription,
    RunSubscription,
    StateSubscription,
    Subscription,
)
from treadle.sync.thread import Thread, ThreadRun

if TYPE_CHECKING:
    from treadle.sync.client import Client

__all__ = [
    "Archive",
    "Client",
    "DeskSubscription",
    "Files",
    "Memory",
    "RunSubscription",
    "Runtime",
    "RuntimeView",
    "StateSubscription",
    "Subscription",
    "Thread",
    "ThreadRun",
]

_MODULES = {"Client": "treadle.sync.client"}


def __getattr__(name: str) -> object:
    # Imported when first named: aiohttp is slow to import.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
