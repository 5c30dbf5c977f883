"""A client of a server, with the verbs of the runtime."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from treadle.client.address import server_key, server_url
from treadle.client.connection import Connection
from treadle.client.known_agents import KnownAgents
from treadle.client.listed import Listed
from treadle.client.remote_view import RemoteView
from treadle.domain.arguments import require_list, require_type, shown
from treadle.errors import ConfigurationError
from treadle.loop.definition import AgentDefinition
from treadle.server.bodies import AgentInfo, Me

TIMEOUT = 30.0
RETRY_SECONDS = 60.0


class Client(RemoteView):
    """The threads of a server, with the methods of `treadle.Runtime`: a program written for one
    runs with the other.

        async with Client("http://127.0.0.1:8000", key="…") as client:
            thread = await client.create_thread("demo")
            run = await thread.send("Hello")
            async for text in run.text_stream():
                print(text, end="")

    - `url`: that of the server, by default the variable `TREADLE_URL`.
    - `key`: by default the variable `TREADLE_KEY`; "" for a server that needs none. It is in no
      representation, log or error. The key decides which threads are found.
    - `agents`: agents of the server that are known here as well, so that results have the types of
      their outputs. Without them an output is plain JSON.
    - `timeout`: how long the answer of a request may take, in seconds.
    - `retry_seconds`: for how long a request is repeated, and a stream connects again, while the
      server cannot be reached; then `ServerUnreachable` is raised. A request is repeated only if
      that cannot do something twice.

    Entering asks the server who the key belongs to; it raises `ServerUnreachable` at once, and
    `NotAuthenticated`. Then `owner` is the owner of the key (None for all owners), `by` the
    principal that is recorded with what the client does, and `scopes` what the key allows: `read`,
    `write`, `approve`, `admin`. A `Client` belongs to one event loop.
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
        self.url = server_url(url)
        self.retry_seconds = _seconds("retry_seconds", retry_seconds, least=0.0)
        connection = Connection(
            self.url,
            server_key(key),
            timeout=_seconds("timeout", timeout, least=0.001),
            retry_seconds=self.retry_seconds,
        )
        super().__init__(connection, KnownAgents())
        self.scopes: Sequence[str] = ()
        for one in require_list("agents", agents, "agents=[agent]"):
            require_type("An entry of agents", one, AgentDefinition, "agents=[agent]")
            self.register(one)  # pyright: ignore[reportArgumentType]

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def __aenter__(self) -> "Client":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Connects to the server; raises `ServerUnreachable` and `NotAuthenticated`."""
        self._connection.open()
        try:
            me = await self._connection.call("GET", "/me", Me, tries_once=True)
        except BaseException:
            await self.shutdown()
            raise
        self.owner, self._key_name, self.scopes = me.owner, me.by, tuple(me.scopes)

    async def shutdown(self) -> None:
        """Closes all connections; runs on the server continue."""
        await self._connection.close()

    def register(self, agent: AgentDefinition[Any, Any]) -> None:
        """Makes an agent of the server known here, for the type of its output."""
        self._known.register(agent)

    async def agents(self) -> Sequence[AgentInfo]:
        """Returns the agents of the server, with their models and tools."""
        return (await self._connection.get("/agents", Listed[AgentInfo])).data


def _seconds(name: str, value: object, *, least: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
        raise ConfigurationError(f"{name} must be a number of seconds, not {shown(value)}.")
    return float(value)
