"""Puts a transport in the place of the real one, for all models of this process."""

from collections.abc import Generator
from contextlib import contextmanager

from treadle.errors import TestingError
from treadle.models import transport
from treadle.models.transport import Transport


@contextmanager
def installed(replacement: Transport) -> Generator[None]:
    """While it is open, all requests go through `replacement`.

    It counts for the process and not for the task that opens it, because a fixture opens it in
    another task than the test runs in, and threads are driven by tasks that were there before.
    """
    if transport.current() is not transport.post:
        raise TestingError("A recording or a replay is open already; close it first.")
    before = transport.use(replacement)
    try:
        yield
    finally:
        transport.use(before)
