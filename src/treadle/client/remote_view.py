"""The threads of a server that a key reaches, or those of one owner, with the verbs of a view."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from treadle.actors.shared_memory import shared_id
from treadle.actors.spending import Period
from treadle.actors.thread_export import Lines, lines_of
from treadle.client.address import segment
from treadle.client.connection import Connection, decoded
from treadle.client.known_agents import KnownAgents
from treadle.client.listed import Listed
from treadle.client.remote_archive import RemoteArchive
from treadle.client.remote_files import RemoteFiles
from treadle.client.remote_memory import RemoteMemory
from treadle.client.remote_run import RemoteRun
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
from treadle.domain.schedules import Schedule
from treadle.domain.spending import Spending
from treadle.domain.state import RunStatus
from treadle.errors import InvalidInput, RunNotFound, ThreadNotFound
from treadle.journal.base import ThreadInfo, ThreadOrder, WaitingCall
from treadle.journal.projection import RunRecord
from treadle.loop.definition import AgentDefinition
from treadle.memory.archive.query import Moment
from treadle.runtime.view import id_of_key


class RemoteView:
    """The threads of a server that a caller reaches, with the methods of `treadle.RuntimeView`.

    `Client.for_owner` makes one. `owner` is the owner, None for all owners, and `by` is the
    principal that the server records with whatever is done.
    """

    def __init__(
        self,
        connection: Connection,
        known: KnownAgents,
        *,
        owner: str | None = None,
        key_name: str = "",
        acts_for: str = "",
    ) -> None:
        self.owner = owner
        self._connection = connection
        self._known = known
        self._key_name = key_name
        self._acts_for = acts_for

    @property
    def by(self) -> str:
        """The principal that is recorded: the name of the key, and a person behind it."""
        return "/".join(name for name in (self._key_name, self._acts_for) if name)

    def for_owner(self, owner: str | None, *, by: str = "") -> "RemoteView":
        """Returns the view of one owner: all others are not found in it; it costs nothing.

        - `owner`: a user or tenant of yours; "" is the threads without an owner. None is all that
          the key reaches.
        - `by`: the person in whose place the program acts, any text of yours of at most 256
          characters. The server records it behind the name of the key: `key:…/PERSON`.

        Raises `InvalidInput` as `RuntimeView.for_owner` does. The server refuses an owner that the
        key does not reach with each request.
        """
        acts_for = require_text("by", by) or self._acts_for
        if owner is not None or self.owner is not None:
            owner = self._owned("" if owner is None else owner)
        elif not acts_for:
            raise InvalidInput(
                "for_owner(None) would reach the threads of all owners; name the owner, or pass "
                "by=… if that is wanted."
            )
        return RemoteView(
            self._connection.acting(owner, acts_for),
            self._known,
            owner=owner,
            key_name=self._key_name,
            acts_for=acts_for,
        )

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
            self._known.register(agent)
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

    async def import_thread(
        self, lines: Lines, *, owner: str = "", keep_id: bool = False
    ) -> RemoteThread:
        """Adds the thread that `export` returned, with its files; returns it.

        The parameters are those of `RuntimeView.import_thread`; the key needs the scope `admin`,
        and the server limits the size. It is not sent again if the answer is lost.
        """
        content = await asyncio.to_thread(lambda: b"\n".join(lines_of(lines)))
        info = await self._connection.call(
            "POST",
            "/threads/import",
            ThreadInfo,
            query={"owner": require_text("owner", owner) or None, "keep_id": bool(keep_id)},
            content=content,
            headers={"content-type": "application/x-ndjson"},
            repeats=False,
        )
        return self._thread(info.id, is_new=True)

    async def connect(self, thread_id: str = "", *, key: str = "", owner: str = "") -> RemoteThread:
        """Returns a thread that exists; raises `ThreadNotFound`.

        It is named by its id, or by the `key` that it was created with and its `owner`, by default
        that of the key of the client.
        """
        if require_text("key", key):
            if thread_id:
                raise InvalidInput("connect takes a thread_id or a key, not both.")
            thread_id = id_of_key(self._owned(owner), key)
        thread = self._thread(require_text("thread_id", thread_id))
        await thread.info()
        return thread

    async def memory(self, name: str, *, owner: str = "", create: bool = True) -> RemoteMemory:
        """Returns the memory that threads of an owner share under a name; see `Block.shared`.

        It is created with its first change; with `create=False` it must exist, else
        `ThreadNotFound` is raised.
        """
        id = shared_id(self._owned(owner), require_text("name", name))
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
        """The files of the owner of the view; those of all owners in a view of all."""
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
        return RemoteRun(record.id, record.thread_id, self._connection, self._known.agent_of)

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

    async def memories(
        self, *, limit: int = 50, after: str = "", owner: str | None = None
    ) -> Page[ThreadInfo]:
        """Returns a page of the shared memories; see `RuntimeView.memories`."""
        query = _page_query(limit, after, owner)
        return (await self._connection.get("/memory", Listed[ThreadInfo], query)).page

    async def schedules(
        self, *, limit: int = 50, after: str = "", owner: str | None = None
    ) -> Page[Schedule]:
        """Returns a page of the schedules of all threads; see `RuntimeView.schedules`."""
        query = _page_query(limit, after, owner)
        return (await self._connection.get("/schedules", Listed[Schedule], query)).page

    async def spending(
        self, *, owner: str = "", period: Period = "month", tz: str = "UTC"
    ) -> Spending:
        """Returns what an owner has spent today or this month; see `RuntimeView.spending`."""
        require_choice("period", period, Period)
        query = {
            "owner": self._owned(owner),
            "period": period,
            "tz": require_text("tz", tz),
        }
        return await self._connection.get("/spending", Spending, query)

    async def delete_owner(self, owner: str = "") -> None:
        """Deletes all threads of an owner, shared memories, and all that they remember.

        It needs a key with the scope `admin`. See `RuntimeView.delete_owner`.
        """
        if not (owned_by := self._owned(owner)):
            raise InvalidInput(
                "The owner is empty; name the owner whose threads are to be deleted."
            )
        query = {"owner": owned_by}
        await self._connection.call("DELETE", "/owner", query=query)

    def _thread(self, thread_id: str, *, is_new: bool = False) -> RemoteThread:
        return RemoteThread(thread_id, self._connection, self._known, is_new=is_new)

    def _owned(self, owner: str) -> str:
        """Returns the owner that is meant; raises `InvalidInput` for one outside of the view."""
        require_text("owner", owner)
        if self.owner is None:
            return owner
        if owner not in {"", self.owner}:
            raise InvalidInput(
                "This view reaches the threads of one owner, and owner=… names another; leave it "
                "out, or use for_owner of the client."
            )
        return self.owner


def _page_query(limit: int, after: str, owner: str | None) -> dict[str, str | int | None]:
    limit = min(require_count("limit", limit, 1), MAX_PAGE)
    return {"limit": limit, "after": require_text("after", after), "owner": owner}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
