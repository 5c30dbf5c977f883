"""treadle on threads that are kept in memory."""

from contextlib import AbstractAsyncContextManager

from benchmarks.parties.treadle_threads import TreadleThreads, threads


def connect(url: str) -> AbstractAsyncContextManager[TreadleThreads]:
    """Opens a runtime in memory."""
    return threads(url, None)
