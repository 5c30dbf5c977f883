"""The runtime of the contract tests, behind a real server: they use a client of it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.server.serving import serving

from treadle import Runtime
from treadle.client import Client
from treadle.journal.sqlite import SqliteJournal


class Served:
    """Opens a runtime, a server for it on a loopback port, and a client of that."""

    def __init__(self, runtime: Runtime, agents: tuple[Any, ...]) -> None:
        self._runtime = runtime
        self._agents = agents
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Client:
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(serving(self._runtime))
            client = await stack.enter_async_context(
                Client(str(served.http.base_url), key="", agents=self._agents)
            )
            self._stack = stack.pop_all()
        return client

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@pytest.fixture
def open_runtime(tmp_path: Path) -> Callable[..., Any]:
    """Opens a client of a server in the place of a runtime; opened again, it finds what was."""

    def open_one(*agents: Any, **options: Any) -> Served:
        journal = SqliteJournal(tmp_path / "treadle.db")
        index = tmp_path / "treadle.db-archive"
        return Served(Runtime(journal, agents=agents, index=index, **options), agents)

    return open_one
