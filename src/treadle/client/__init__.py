"""A client of a treadle server: the verbs and types of the runtime against a URL.

A program that is written for a `Runtime` and its threads runs with a `Client` as it is.
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

if TYPE_CHECKING:
    from treadle.client.client import Client
    from treadle.client.remote_archive import RemoteArchive
    from treadle.client.remote_files import RemoteFiles
    from treadle.client.remote_memory import RemoteMemory
    from treadle.client.remote_run import RemoteRun
    from treadle.client.remote_subscription import RemoteDesk, RemoteSubscription
    from treadle.client.remote_thread import RemoteThread
    from treadle.client.remote_view import RemoteView

__all__ = [
    "Client",
    "RemoteArchive",
    "RemoteDesk",
    "RemoteFiles",
    "RemoteMemory",
    "RemoteRun",
    "RemoteSubscription",
    "RemoteThread",
    "RemoteView",
]

_MODULES = {
    "Client": "treadle.client.client",
    "RemoteArchive": "treadle.client.remote_archive",
    "RemoteDesk": "treadle.client.remote_subscription",
    "RemoteFiles": "treadle.client.remote_files",
    "RemoteMemory": "treadle.client.remote_memory",
    "RemoteRun": "treadle.client.remote_run",
    "RemoteSubscription": "treadle.client.remote_subscription",
    "RemoteThread": "treadle.client.remote_thread",
    "RemoteView": "treadle.client.remote_view",
}


def __getattr__(name: str) -> object:
    # Imported when first named: aiohttp is slow to import.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
