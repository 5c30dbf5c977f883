"""What every test has: a virtual clock, no network, and an alarm for blocking calls."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

from weft.testing import VirtualClockLoop, forbid_network


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Async tests run on a virtual clock; a test that needs the real one overrides this."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    with forbid_network():
        yield


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A blocking call of weft's own code on the event loop raises."""
    alarm = BlockBuster(scanned_modules=["weft"], excluded_modules=["weft.testing"])
    alarm.activate()
    try:
        yield
    finally:
        alarm.deactivate()
