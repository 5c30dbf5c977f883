"""The client of a server for synchronous code."""

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.client.client import RETRY_SECONDS, TIMEOUT
from treadle.client.client import Client as AsyncClient
from treadle.loop.definition import AgentDefinition
from treadle.sync.handle import waits_for
from treadle.sync.runtime import OpenedView


class Client(OpenedView):
    """`treadle.client.Client` for synchronous code: the same methods, which wait.

        with treadle.sync.Client("http://127.0.0.1:8000", key="…") as client:
            thread = client.create_thread("demo")
            print(thread.send("Hello").text())

    The parameters are those of `treadle.client.Client`. Threads, runs and events are those of this
    module, so a program that is written for `treadle.sync.open` runs with it as well.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        agents: Iterable[AgentDefinition[Any, Any]] = (),
        timeout: float = TIMEOUT,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._client = AsyncClient(
            url, key=key, agents=agents, timeout=timeout, retry_seconds=retry_seconds
        )
        super().__init__(self._client)

    agents = waits_for(AsyncClient.agents)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._client.url

    @property
    def scopes(self) -> Sequence[str]:
        """What the key allows: `read`, `write`, `approve`, `admin`."""
        return self._client.scopes
