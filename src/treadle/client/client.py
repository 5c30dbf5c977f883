"""A client of a server, with the verbs of the runtime."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import msgspec

from treadle.actors.shared_memory import shared_id
from treadle.client.address import segment, server_key, server_url
from treadle.client.connection import Connection, decoded
from treadle.client.listed import Listed
from treadle.client.remote_archive import RemoteArchive
from treadle.client.remote_files import RemoteFiles
from treadle.client.remote_memory import RemoteMemory
from treadle.client.remote_run import AnyAgent, RemoteRun
from treadle.client.remote_subscription import RemoteDesk
from treadle.client.remote_thread import RemoteThread, search
from treadle.clock import now
from treadle.domain.arguments import (
    require_choice,
    require_count,
    require_list,
    require_text,
    require_type,
    shown,
)
from treadle.domain.events import Awaited, DurableEvent
from treadle.domain.inputs import as_history, without_new_ids
from treadle.domain.items import Role
from treadle.domain.metadata import checked_metadata
from treadle.domain.page import MAX_PAGE, Page
from treadle.domain.passages import By, Found
from treadle.domain.retention import expiry_time
from treadle.domain.state import Run, RunStatus
from treadle.errors import (
    ConfigurationError,
    InvalidInput,
    RunNotFound,
    ThreadNotFound,
    UnknownAgent,
)
from treadle.journal.base import ThreadInfo, ThreadOrder, WaitingCall
from treadle.journal.projection import RunRecord
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition, agent_with_options, reachable_from
from treadle.memory.archive.query import Moment
from treadle.runtime.view import id_of_key
from treadle.server.bodies import AgentInfo, Me

TIMEOUT = 30.0
RETRY_SECONDS = 60.0


class Client:
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
    `NotAuthenticated`. A `Client` belongs to one event loop.
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
        self._connection = Connection(
            self.url,
            server_key(key),
            timeout=_seconds("timeout", timeout, least=0.001),
            retry_seconds=self.retry_seconds,
        )
        self._agents: dict[str, AnyAgent] = {}
        self._catalog = Catalog()
        self._me: Me | None = None
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
            self._me = await self._connection.call("GET", "/me", Me, tries_once=True)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Closes all connections; runs on the server continue."""
        await self._connection.close()

    @property
    def owner(self) -> str | None:
        """The owner of the key, None for all owners, or before the client is open."""
        return None if self._me is None else self._me.owner

    @property
    def by(self) -> str:
        """The principal of the key, which is recorded with everything that the client does."""
        return "" if self._me is None else self._me.by

    @property
    def scopes(self) -> Sequence[str]:
        """What the key allows: `read`, `write`, `approve`, `admin`."""
        return () if self._me is None else tuple(self._me.scopes)

    def register(self, agent: AgentDefinition[Any, Any]) -> None:
        """Makes an agent of the server known here, for the type of its output."""
        self._agents.update(reachable_from(agent))

    async def agents(self) -> Sequence[AgentInfo]:
        """Returns the agents of the server, with their models and tools."""
        return (await self._connection.get("/agents", Listed[AgentInfo])).data

    async def create_thread(
        self,
        agent: AgentDefinition[Any, Any] | str = "",
        *,
        metadata: Mapping[str, object] | None = None,
        owner: str = "",
        history: object = (),
        key: str = "",
        expires_at: datetime | None = None,
        store: bool = True,
    ) -> RemoteThread:
        """Makes a thread on which `agent` answers, unless a message names another.

        The parameters are those of `RuntimeView.create_thread`; the agent, or its name, must be one
        of the server, and can be left out if that has only one. `owner` is for keys without an
        owner. With a `key`, the request is repeated if its answer is lost.
        """
        if not isinstance(agent, str):
            require_type("agent", agent, AgentDefinition, "create_thread(agent), or its name")
            self.register(agent)
            agent = agent.name
        body: dict[str, object] = {
            "agent": require_text("agent (the name of an agent)", agent),
            "metadata": checked_metadata(metadata or {}),
        }
        if require_text("owner", owner):
            body["owner"] = owner
        if items := as_history(history):
            body["history"] = without_new_ids(items)
        if require_text("key", key):
            body["key"] = key
        if expires_at is not None:
            body["expires_at"] = expiry_time(expires_at, now())
        if not store:
            body["store"] = False
        status, answer = await self._connection.send(
            "POST", "/threads", body=body, repeats=bool(key)
        )
        return self._thread(decoded(answer, ThreadInfo).id, is_new=status == 201)

    async def connect(self, thread_id: str = "", *, key: str = "", owner: str = "") -> RemoteThread:
        """Returns a thread that exists; raises `ThreadNotFound`.

        It is named by its id, or by the `key` that it was created with and its `owner`, by default
        that of the key of the client.
        """
        if require_text("key", key):
            if thread_id:
                raise InvalidInput("connect takes a thread_id or a key, not both.")
            thread_id = id_of_key(require_text("owner", owner) or self.owner or "", key)
        thread = self._thread(require_text("thread_id", thread_id))
        await thread.info()
        return thread

    async def memory(self, name: str, *, owner: str = "", create: bool = True) -> RemoteMemory:
        """Returns the memory that threads of an owner share under a name; see `Block.shared`.

        It is created with its first change; with `create=False` it must exist, else
        `ThreadNotFound` is raised.
        """
        owned_by = require_text("owner", owner) or self.owner or ""
        id = shared_id(owned_by, require_text("name", name))
        memory = RemoteMemory(self._connection, thread_id=id, name=name, owner=owner)
        if not create:
            await self._thread(id).info()
        await memory.blocks()  # raises for a name that is none
        return memory

    def archive(self, *, owner: str = "") -> RemoteArchive:
        """Returns the archive of an owner: texts of no conversation, and those of all."""
        return RemoteArchive(self._connection, owner=require_text("owner", owner) or None)

    @property
    def files(self) -> RemoteFiles:
        """The files of the owner of the key."""
        return RemoteFiles(self._connection)

    async def search(
        self,
        text: str,
        *,
        owner: str = "",
        thread_id: str = "",
        roles: Sequence[Role] = (),
        since: Moment | None = None,
        until: Moment | None = None,
        by: By = "both",
        limit: int = 10,
        offset: int = 0,
    ) -> list[Found]:
        """Returns the messages of the owner's conversations that fit `text` best."""
        return await search(
            self._connection,
            text,
            owner=owner,
            thread_id=thread_id,
            roles=roles,
            since=since,
            until=until,
            by=by,
            limit=limit,
            offset=offset,
        )

    async def threads(
        self,
        *,
        limit: int = 50,
        after: str = "",
        owner: str | None = None,
        parent: str = "",
        status: RunStatus | Sequence[RunStatus] = (),
        agent: str = "",
        metadata: Mapping[str, object] | None = None,
        order: ThreadOrder = "-updated",
    ) -> Page[ThreadInfo]:
        """Returns a page of threads, those used last first; see `RuntimeView.threads`."""
        require_choice("order", order, ThreadOrder)
        statuses = (status,) if isinstance(status, str) else tuple(status)
        for one in statuses:
            require_choice("status", one, RunStatus)
        query: dict[str, Any] = {
            "limit": min(require_count("limit", limit, 1), MAX_PAGE),
            "after": require_text("after", after),
            "owner": owner,
            "parent": require_text("parent", parent),
            "status": statuses,
            "agent": require_text("agent", agent),
            "metadata": _json(checked_metadata(metadata)) if metadata else "",
            "order": order,
        }
        return (await self._connection.get("/threads", Listed[ThreadInfo], query)).page

    async def run(self, run_id: str, *, owner: str | None = None) -> RemoteRun:
        """Returns a run of any thread; raises `RunNotFound`.

        `owner` finds only a run of a thread of this owner, for keys without one.
        """
        path = f"/runs/{segment(require_text('run_id', run_id), RunNotFound, 'run')}"
        record = await self._connection.get(path, RunRecord)
        if owner is not None and (await self._thread(record.thread_id).info()).owner != owner:
            raise RunNotFound(f"There is no run {run_id[:100]!r}.")
        return RemoteRun(record.id, record.thread_id, self._connection, self._agent_of)

    def subscribe(
        self,
        *,
        types: Iterable[str | type[DurableEvent]] = (),
        after: str | None = None,
        owner: str | None = None,
    ) -> RemoteDesk:
        """Returns what happens on all threads from now on; see `RuntimeView.subscribe`."""
        words: list[str] = []
        for one in require_list("types", types, 'types=["run.completed"]'):
            word = getattr(one, "type", one)
            if not isinstance(word, str):
                raise InvalidInput(f"types contains {shown(one)}; pass types of events.")
            words.append(word)
        if after is not None and not require_text("after", after):
            raise InvalidInput('after is empty; pass a position, "start", or None for now.')
        query: dict[str, Any] = {"type": tuple(words), "owner": owner}
        if after == "start":
            query["from"], after = "start", None
        return RemoteDesk(self._connection, query, after or "")

    async def calls(
        self,
        *,
        limit: int = 50,
        after: str = "",
        owner: str | None = None,
        thread_id: str = "",
        agent: str = "",
        awaits: Awaited | None = None,
    ) -> Page[WaitingCall]:
        """Returns a page of the calls that wait for an answer; see `RuntimeView.calls`."""
        if awaits is not None:
            require_choice("awaits", awaits, Awaited)
        query: dict[str, Any] = {
            "limit": min(require_count("limit", limit, 1), MAX_PAGE),
            "after": require_text("after", after),
            "owner": owner,
            "agent": require_text("agent", agent),
            "awaits": awaits,
        }
        path = "/calls"
        if thread_id:
            path = f"/threads/{segment(thread_id, ThreadNotFound, 'thread')}/calls"
        return (await self._connection.get(path, Listed[WaitingCall], query)).page

    def _thread(self, thread_id: str, *, is_new: bool = False) -> RemoteThread:
        connection, agent_of = self._connection, self._agent_of
        return RemoteThread(thread_id, connection, agent_of, self._catalog, is_new=is_new)

    def _agent_of(self, run: Run) -> AnyAgent:
        """Returns the agent that worked on a run; raises `UnknownAgent` if it is not known here."""
        agent = self._agents.get(run.agent)
        if agent is None:
            raise UnknownAgent(
                f"The agent {run.agent[:100]!r} is not known to this client; pass "
                "Client(agents=[agent]), or use the JSON of result()."
            )
        if run.options is None:
            return agent
        return agent_with_options(agent, run.options.of_result, self._catalog, run.first_agent)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _seconds(name: str, value: object, *, least: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
        raise ConfigurationError(f"{name} must be a number of seconds, not {shown(value)}.")
    return float(value)
