"""weft on threads that are kept in memory."""

from contextlib import AbstractAsyncContextManager

from benchmarks.parties.weft_threads import WeftThreads, threads


def connect(url: str) -> AbstractAsyncContextManager[WeftThreads]:
    """Opens a runtime in memory."""
    return threads(url, None)
