"""The runtime: threads that are kept, driven and watched."""

import asyncio
import math
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from treadle.actors.access import ThreadAccess
from treadle.actors.driver import Driver
from treadle.actors.engine import EmbeddedEngine, Engine
from treadle.actors.following import Following
from treadle.actors.host import AnyAgent
from treadle.actors.idle_engine import IdleEngine
from treadle.actors.permits import RunLimits
from treadle.actors.postgres_engine import PostgresEngine
from treadle.actors.restate import Restate
from treadle.actors.spending import SpendingGuard, SpendingLimits
from treadle.actors.threads import Threads
from treadle.bus.base import Bus
from treadle.bus.listener import NodeListener
from treadle.bus.local import LocalBus
from treadle.domain.arguments import (
    require_list,
    require_type,
)
from treadle.domain.keywords import suggests
from treadle.domain.state import Run
from treadle.domain.urls import masked_url
from treadle.errors import (
    ConfigurationError,
    JournalClosed,
    UnknownAgent,
)
from treadle.journal.base import Durability, Journal, ThreadInfo
from treadle.journal.memory import MemoryJournal
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition, AnyTool, agent_with_options, reachable_from
from treadle.memory.archive.access import ArchiveAccess
from treadle.models.base import Model
from treadle.models.transport import Transport
from treadle.runtime.view import RuntimeView
from treadle.tools.async_only import AsyncOnly
from treadle.tools.callables import Now, user_function
from treadle.tools.context import RunContext

if TYPE_CHECKING:
    from treadle.journal.postgres_nodes import Nodes
    from treadle.memory.archive.embedders import Embedder, EmbedFunction

MakeDeps = (
    Callable[[ThreadInfo], Now[object]] | Callable[[RunContext[None], ThreadInfo], Now[object]]
)
IDLE_SECONDS = 30.0
CLOSE_SECONDS = 5.0
"""How long `shutdown` waits for a database that is away, or what is left of the time of `drain`."""


class Runtime(RuntimeView, AsyncOnly):
    """Threads on a journal: makes them, finds them, drives them. Made by `open`.

    Use it as an async context manager, or call `start` and `shutdown`. `open` documents the
    parameters; besides these, `engine` may be any `Engine`, `bus` carries events to and from other
    runtimes (both by default among those of this process on the same `journal`), and `index` is
    the file of the archive's index (None keeps it in the database of a journal that several nodes
    share, otherwise in memory).
    """

    _usage = "async with treadle.open(…) as runtime:"

    def __init__(
        self,
        journal: Journal,
        *,
        agents: Iterable[AgentDefinition[Any, Any]] = (),
        deps: MakeDeps | None = None,
        models: Mapping[str, Model] | None = None,
        tools: Iterable[AnyTool] = (),
        outputs: Iterable[type[Any]] = (),
        drive: bool = True,
        idle_seconds: float = IDLE_SECONDS,
        embedder: "Embedder | EmbedFunction | str | None" = None,
        engine: Engine | Restate | None = None,
        bus: Bus | None = None,
        listener: NodeListener | None = None,
        index: Path | None = None,
        transport: Transport | None = None,
        spending: SpendingLimits = (),
        max_runs_per_owner: int | None = None,
        max_runs_per_node: int | None = None,
    ) -> None:
        super().__init__(self, journal)
        self.journal = journal
        self._archive = ArchiveAccess(journal, index, embedder)
        self.catalog = Catalog(models=models, tools=tools, outputs=outputs)
        self._agents: dict[str, AnyAgent] = {}
        self._lent: set[str] = set()
        for one in require_list("agents", agents, "agents=[agent]"):
            require_type("An entry of agents", one, AgentDefinition, "agents=[agent]")
            agent = cast("AgentDefinition[Any, Any]", one)
            if self._agents.get(agent.name, agent) is not agent:
                raise ConfigurationError(f"Two agents are called {agent.name!r}; rename one.")
            self.register(agent)
        bus = bus or _bus_on(journal, listener)
        guard = SpendingGuard(journal, spending)
        limits = RunLimits(max_runs_per_owner, max_runs_per_node)
        make_deps = user_function(deps or _no_deps, "deps", ("thread",))

        def make_driver(threads: ThreadAccess, following: Following) -> Driver:
            return Driver(
                journal,
                threads=threads,
                following=following,
                engine=self._engine_on(journal, engine, limits),
                bus=bus,
                archive=self._archive,
                agent=self.agent,
                deps=make_deps,
                catalog=self.catalog,
                lend=self._lend,
                idle_seconds=idle_seconds,
                spending=guard,
                transport=transport,
            )

        self._threads = Threads(journal, bus, self._archive, make_driver if drive else None)
        self._open = False
        self._drained_at = math.inf  # when `drain` ends, by the clock of the event loop

    def _engine_on(
        self, journal: Journal, engine: Engine | Restate | None, limits: RunLimits
    ) -> Engine:
        if engine is not None and not isinstance(engine, Restate):
            return engine
        if not journal.has_nodes:
            if engine is not None:
                raise ConfigurationError("With Restate, threads are in a PostgreSQL database.")
            return EmbeddedEngine(journal, limits)
        nodes: Nodes = cast("Any", journal).nodes
        if engine is None:
            return PostgresEngine(nodes, lambda: self._agents, limits)
        restate = _restate_engine()
        made: Engine = restate.RestateEngine(nodes, lambda: self._agents, engine, limits)
        return made

    async def __aenter__(self) -> "Runtime":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Opens the journal, and resumes what was not finished.

        Raises the kinds of `JournalError`.
        """
        await self.journal.open()
        self._archive.open()
        self._open = True
        self._drained_at = math.inf
        try:
            await self._threads.start()
        except BaseException:
            await self.shutdown()
            raise

    async def drain(self, seconds: float = 30.0) -> None:
        """Lets each run finish the step it is in; call it before `shutdown`, to deploy.

        No further step begins here: a run is continued by another process on the same PostgreSQL
        database at once, else when the database is opened again. Without it, `shutdown` interrupts
        responses of models, which are asked for again and paid for twice. Messages are still
        accepted. Returns when no step, job or compaction is under way, at the latest after
        `seconds`.
        """
        if self._open:
            self._drained_at = asyncio.get_running_loop().time() + seconds
            await self._threads.drain(seconds)

    async def shutdown(self) -> None:
        """Stops driving, waits until what was said is kept, and closes the journal.

        Runs that did not end are resumed when the database is opened again. A PostgreSQL server
        that is away is waited for up to 5 seconds, or for what is left of the time of `drain` if
        that is less; what was acknowledged is stored there. A second call does nothing. Raises
        `ConfigurationError` in a job, for which it would wait.
        """
        if not self._open:
            return
        self._open = False
        left = self._drained_at - asyncio.get_running_loop().time()
        self.journal.limit_waits(min(CLOSE_SECONDS, max(0.0, left)))
        try:
            await self._threads.stop()
        except ConfigurationError:
            self._open = True  # nothing was stopped
            self.journal.limit_waits(None)
            raise
        finally:
            if not self._open:
                await self._archive.close()
                await self.journal.close()

    def register(self, agent: AgentDefinition[Any, Any]) -> None:
        """Makes an agent known, and those it may hand over to or have work for it.

        One of the same name is replaced from the next run on.
        """
        for name, one in reachable_from(agent).items():
            self._agents[name] = cast("AnyAgent", one)

    def _lend(self, agent: AnyAgent) -> None:
        """Registers an agent that a tool or a hook runs; it replaces no other."""
        for name, one in reachable_from(agent).items():
            known = self._agents.get(name)
            if known is not None and known is not one and name not in self._lent:
                raise ConfigurationError(
                    f"The agent that is to work is called {name!r} like one of this runtime; give "
                    "it another name=…."
                )
        for name, one in reachable_from(agent).items():
            if name not in self._agents:
                self._lent.add(name)
            self._agents[name] = cast("AnyAgent", one)

    @property
    def agents(self) -> Mapping[str, AnyAgent]:
        """The agents that are known here, by name."""
        return MappingProxyType(self._agents)

    def agent(self, name: str) -> AnyAgent:
        """Returns the agent of that name; raises `UnknownAgent`."""
        if name not in self._agents:
            known = ", ".join(self._agents)
            raise UnknownAgent(
                f"The agent {name[:100]!r} is not known here; "
                + (
                    f"this runtime knows: {known}."
                    if known
                    else "this runtime was opened without agents: treadle.open(…, agents=[agent])."
                )
            )
        return self._agents[name]

    def agent_of(self, run: Run) -> AnyAgent:
        """Returns the agent that worked on a run, as far as the result of the run depends on it."""
        agent = self.agent(run.agent)
        if run.options is None:
            return agent
        return agent_with_options(agent, run.options.of_result, self.catalog, run.first_agent)

    def reach(self) -> ThreadAccess:
        """Returns the way to the threads; raises `JournalClosed`."""
        if not self._open:
            raise JournalClosed("The runtime is not open; use `async with treadle.open(…)`.")
        return self._threads


@suggests("open", {"agent": "agents=[agent]", "path": "url=…", "database": "url=…"})
def open(
    url: str | None = None,
    *,
    agents: Iterable[AgentDefinition[Any, Any]] = (),
    deps: MakeDeps | None = None,
    models: Mapping[str, Model] | None = None,
    tools: Iterable[AnyTool] = (),
    outputs: Iterable[type[Any]] = (),
    durability: Durability = "process",
    drive: bool = True,
    idle_seconds: float = IDLE_SECONDS,
    embedder: "Embedder | EmbedFunction | str | None" = None,
    transport: Transport | None = None,
    spending: SpendingLimits = (),
    max_runs_per_owner: int | None = None,
    max_runs_per_node: int | None = None,
    index: Path | None = None,
    pooler: str | None = None,
    listener: NodeListener | None = None,
    engine: Restate | None = None,
) -> Runtime:
    """Returns the runtime on a database; use it as an async context manager.

        async with treadle.open("sqlite:///treadle.db", agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)

    - `url`: `sqlite:///` and a path (four slashes make it absolute), or `postgresql://` as libpq
      reads it (needs `treadle[postgres]`); None keeps threads in memory.
    - `agents`: the agents that may work on the threads, and on runs that did not end.
    - `deps`: a function of the thread that returns what tools get as `RunContext.deps`, each time
      a run starts or resumes. It is plain or async, and may take a `RunContext` before the thread.
    - `models`, `tools`, `outputs`: what the options of a run may name, besides what the agents
      have: models by names of yours, tools, and output types by the names of their classes.
    - `durability`: `"process"` survives the end of the process, also by `kill -9`; `"power"` also
      that of the power, for the price of a sync for each group of events. A PostgreSQL server
      decides that by its own setting (`synchronous_commit`).
    - `drive`: False only reads, watches and sends, while another process drives the threads.
    - `idle_seconds`: after how long an unused thread leaves the memory, in seconds.
    - `embedder`: makes the vectors by which the archive finds texts of the same meaning: an
      `Embedder`, a string such as `"openai:text-embedding-3-small"`, or a function of a list of
      texts. Without one it finds by full text.
    - `transport`: sends the HTTP requests of the runs that this runtime drives, for models without
      a transport of their own; by default the network. Give an embedder its own.
    - `spending`: what each owner may spend in a day or month: a list of `SpendingLimit`s, or a
      function of the owner, plain or async, that returns one. An owner that has reached a limit
      gets no request to a model: its runs fail with `SpendingLimitReached`.
    - `max_runs_per_owner`: how many threads of an owner are worked on at a time, by all nodes of a
      PostgreSQL database together. A run above it waits, in the order of the messages, until one
      has ended or waits for an answer. None is no limit, and threads without an owner have none.
    - `max_runs_per_node`: how many threads this process works on at a time. Above it, another node
      with room takes the run; else it waits, and owners take turns. None is no limit.
    - `index`: the file of the archive's index, which is made of the events. By default it is next
      to a SQLite database, in the database of PostgreSQL, and otherwise in memory.
    - `pooler`: the URL of a pooler in front of the PostgreSQL database, such as PgBouncer in
      transaction mode. All connections use it, except two of a process that drives.
    - `listener`: where this process listens for the other nodes of a PostgreSQL database, which
      show their users what is streamed here. By default only processes of this machine reach it.
    - `engine`: a `Restate` server that asks the nodes of a PostgreSQL database to drive threads;
      by default the database alone decides which node does.

    Raises `ConfigurationError` for a URL it does not know; entering raises `JournalError`.
    """
    if durability not in {"process", "power"}:
        raise ConfigurationError(f"durability={durability!r} is not known; use process or power.")
    if listener is not None and not is_postgres(url):
        raise ConfigurationError("A listener is for the nodes of a PostgreSQL database.")
    if pooler and not is_postgres(url):
        raise ConfigurationError("A pooler is for a PostgreSQL database, whose URL is url.")
    if engine is not None:
        require_type("engine", engine, Restate, "engine=treadle.Restate('http://restate:8080')")
    if url is None and not drive:
        raise ConfigurationError("Threads in memory are driven by the process they are in.")
    journal, bus, beside = _parts(url, durability, drive=drive, pooler=pooler or "")
    return Runtime(
        journal,
        agents=agents,
        models=models,
        tools=tools,
        outputs=outputs,
        deps=deps,
        drive=drive,
        idle_seconds=idle_seconds,
        embedder=embedder,
        transport=transport,
        spending=spending,
        max_runs_per_owner=max_runs_per_owner,
        max_runs_per_node=max_runs_per_node,
        bus=bus,
        listener=listener,
        engine=engine,
        index=index or beside,
    )


def open_idle(url: str) -> Runtime:
    """Returns a runtime that deletes threads of a database, and resumes nothing.

    Their agents need not be known. Entering raises `JournalLocked` while another process drives a
    SQLite database; on PostgreSQL, a thread is taken from the node that drives it.
    """
    journal, bus, beside = _parts(url, "process", drive=True)
    engine: Engine = IdleEngine(journal)
    if journal.has_nodes:
        engine = PostgresEngine(cast("Any", journal).nodes, lambda: ())
        engine.drain()  # it takes no thread, except those that are deleted
    return Runtime(journal, engine=engine, bus=bus, index=beside)


def _parts(
    url: str | None, durability: Durability, *, drive: bool, pooler: str = ""
) -> tuple[Journal, Bus | None, Path | None]:
    """Returns the journal that a URL names, its bus and the file of its archive's index."""
    if is_postgres(url):
        return postgres_journal(url or "", drive=drive, pooler=pooler), None, None
    path = _database(url)
    if path is None:
        return MemoryJournal(), None, None
    # Imported when they are first needed: a program in memory loads no database.
    journal = import_module("treadle.journal.sqlite").SqliteJournal(
        path, durability=durability, drive=drive
    )
    bus = import_module("treadle.bus.socket").SocketBus(path)
    return journal, bus, path.with_name(f"{path.name}-archive")


def _bus_on(journal: Journal, listener: NodeListener | None) -> Bus:
    if not journal.has_nodes:
        return LocalBus(journal)
    network = import_module("treadle.bus.network")
    bus: Bus = network.NetworkBus(cast("Any", journal).nodes, listener)
    return bus


def is_postgres(url: str | None) -> bool:
    """Returns whether a URL names a PostgreSQL database."""
    return url is not None and url.startswith(("postgresql://", "postgres://"))


def postgres_journal(url: str, *, drive: bool = True, pooler: str = "") -> Any:
    """Returns the journal at a URL; raises `ConfigurationError` without the extra."""
    try:
        made = import_module("treadle.journal.postgres").PostgresJournal
    except ImportError as error:
        raise ConfigurationError(
            f"A PostgreSQL database needs the extra: pip install 'treadle[postgres]' ({error})."
        ) from error
    return made(url, drive=drive, pooler=pooler)


def _restate_engine() -> Any:
    """Imports the engine for Restate; raises `ConfigurationError` without the extra."""
    try:
        return import_module("treadle.actors.restate_engine")
    except ImportError as error:
        raise ConfigurationError(
            f"Restate needs the extra: pip install 'treadle[restate]' ({error})."
        ) from error


def _database(url: str | None) -> Path | None:
    """Returns the file that a URL names, None for memory; raises `ConfigurationError`."""
    if url is None:
        return None
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path or path.startswith(":memory:"):
        raise ConfigurationError(
            f"{masked_url(url)[:200]!r} is not a database URL: use sqlite:///treadle.db, "
            "postgresql://user@host/name, or nothing for memory."
        )
    try:
        # The lock, the socket and the archive are next to the file itself, not to a link to it.
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path[:200]!r} is not the path of a database: {error}."
        ) from error


def _no_deps(_: ThreadInfo) -> None:
    """Agents without dependencies get None."""
