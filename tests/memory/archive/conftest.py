"""The index works in threads of its own, in real time."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
