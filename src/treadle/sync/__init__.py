"""The runtime without asyncio: for Flask, views of Django, scripts and notebooks.

    with treadle.sync.open("sqlite:///treadle.db", agents=[agent]) as runtime:
        thread = runtime.create_thread(agent)
        for text in thread.send("Hello").text_stream():
            print(text, end="")

The classes have the methods of those of the same name in `treadle`, with the same parameters; they
wait instead of being awaited. Streams are generators.
"""

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

__all__ = [
    "Archive",
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
