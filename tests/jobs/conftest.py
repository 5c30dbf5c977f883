"""What every test of jobs has: nothing may be logged by the event loop, also after its end."""

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The loop logs exceptions never retrieved, at the latest where they are collected."""
    gc.freeze()  # what earlier tests left would be looked through after each of these
    yield
    gc.collect()
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]
    loop = [r.getMessage() for r in records if r.name == "asyncio" and r.levelno > logging.INFO]
    assert not loop
