"""The threads of a runtime, or those of one owner, as users hold them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from treadle.actors.access import ThreadAccess
from treadle.actors.host import AnyAgent
from treadle.actors.shared_memory import shared_id
from treadle.actors.spending import Period, period_at
from treadle.actors.thread_export import Lines, read_export
from treadle.clock import now
from treadle.domain.arguments import (
    require_choice,
    require_count,
    require_list,
    require_text,
    require_type,
    shown,
)
from treadle.domain.cursor import cursor, key_at
from treadle.domain.desk import DESK_TYPES
from treadle.domain.events import Awaited, DurableEvent
from treadle.domain.ids import id_of, new_id
from treadle.domain.inputs import as_history, with_ids, without_new_ids
from treadle.domain.items import Item, Role
from treadle.domain.metadata import checked_metadata
from treadle.domain.page import MAX_PAGE, Page
from treadle.domain.passages import By, Found
from treadle.domain.retention import expiry_time
from treadle.domain.schedules import Schedule
from treadle.domain.spending import Spending
from treadle.domain.state import Run, RunStatus
from treadle.errors import Conflict, InvalidInput, JournalError, RunNotFound, ThreadNotFound
from treadle.journal.base import (
    CallQuery,
    DuePlace,
    JournalReader,
    ThreadInfo,
    ThreadOrder,
    ThreadQuery,
    WaitingCall,
)
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition
from treadle.memory.archive.query import Moment, filters_of
from treadle.runtime.archive import Archive
from treadle.runtime.desk import DeskSubscription
from treadle.runtime.files import Files
from treadle.runtime.memory import Memory
from treadle.runtime.owned import OwnedAccess, OwnedReader, OwnerGuard
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun

_SchedulePlace = tuple[float, str, int]


class Root(Protocol):
    """The runtime behind a view."""

    def reach(self) -> ThreadAccess:
        """Returns the way to the threads; raises `JournalClosed`."""
        ...

    def agent(self, name: str) -> AnyAgent:
        """Returns the agent of that name; raises `UnknownAgent`."""
        ...

    def agent_of(self, run: Run) -> AnyAgent:
        """Returns the agent that worked on a run, as far as the result of the run depends on it."""
        ...

    @property
    def catalog(self) -> Catalog:
        """The models, tools and output types that options of runs may name."""
        ...

    def register(self, agent: AgentDefinition[Any, Any]) -> None:
        """Makes an agent known."""
        ...


class RuntimeView:
    """The threads that a caller reaches: all of a runtime, or those of one owner.

    `Runtime.for_owner` makes one; it costs nothing. `owner` is the owner, None for all owners, and
    `by` is the principal that is recorded with whatever is done through the view.

    In the view of an owner, threads, runs, memories and passages of other owners are not found:
    each call raises what it raises for an id that does not exist. The parameter `owner` can be left
    out there; another owner than that of the view is refused with `InvalidInput`.
    """

    def __init__(
        self, root: Root, journal: JournalReader, *, owner: str | None = None, by: str = ""
    ) -> None:
        self.owner = owner
        self.by = by
        self._root = root
        self._all = journal
        self._guard = OwnerGuard(journal, owner)
        self._journal = journal if owner is None else OwnedReader(journal, self._guard)

    def for_owner(self, owner: str | None, *, by: str = "") -> "RuntimeView":
        """Returns the view of one owner: all others are not found in it.

        - `owner`: a user or tenant of yours; "" is the threads without an owner. None is the whole
          runtime, which acts as `by`.
        - `by`: the principal, any text of yours such as the id of a user. It is journaled with
          every message, answer, edit and cancel that comes through the view.

        Raises `InvalidInput` for an owner or a principal that is not a text, for None without `by`,
        and in the view of an owner for another one.
        """
        by = require_text("by", by) or self.by
        if owner is not None or self.owner is not None:
            owner = self._owned("" if owner is None else owner)
        elif not by:
            raise InvalidInput(
                "for_owner(None) would reach the threads of all owners; name the owner, or pass "
                "by=… if that is wanted."
            )
        return RuntimeView(self._root, self._all, owner=owner, by=by)

    async def create_thread(
        self,
        agent: AgentDefinition[Any, Any] | str,
        *,
        metadata: Mapping[str, object] | None = None,
        owner: str = "",
        history: object = (),
        key: str = "",
        expires_at: datetime | None = None,
        store: bool = True,
    ) -> Thread:
        """Makes a thread on which `agent` answers, unless a message names another.

        - `history`: items with which the conversation begins, or their forms in the OpenAI APIs.
          Pass what a client sent through `user_messages` first.
        - `key`: an id of yours, unique within the owner: the same call returns the same thread,
          however often and from how many processes it is made. `Thread.is_new` tells which call
          made it, and `connect(key=…)` finds it.
        - `expires_at`: a datetime with a time zone, at which the thread is deleted, whatever is
          done on it then; `Thread.update` changes it. None keeps the thread.
        - `store`: False keeps the thread only while it is used: it is deleted 10 minutes after its
          creation or the last change, unless a run, a job or a schedule is not over then. Copies
          are not stored either. A reader whose connection was cut has that time to return.

        The process that drives the database deletes, or the next one that does; what is deleted is
        described at `Thread.delete`.

        `metadata` is any JSON object. `owner` is a user or tenant of yours, by default that of the
        view. Raises `UnknownAgent` for a name that is not known, `InvalidInput` for metadata that
        is not JSON, a history that is not valid, an owner that is not valid UTF-8 and a time that
        is over, and `Conflict` if the thread with this key was created with another agent,
        metadata, history or `store`.
        """
        threads = self._reach()
        if isinstance(agent, str):
            name = self._root.agent(agent).name
        else:
            require_type("agent", agent, AgentDefinition, "create_thread(agent), or its name")
            name = agent.name
            self._root.register(agent)
        created_at, items = now(), with_ids(as_history(history))
        info = ThreadInfo(
            id=new_id("thread"),
            agent=name,
            owner=self._owned(owner),
            metadata=checked_metadata(metadata or {}),
            created_at=created_at,
            updated_at=created_at,
            key=require_text("key", key),
            expires_at=None if expires_at is None else expiry_time(expires_at, created_at),
            store=bool(store),
        )
        if key:
            info = replace(
                info,
                id=id_of_key(info.owner, key),
                key_digest=_digest(info, items),
            )
        is_new = await self._create(threads, info, items)
        agent_of, catalog = self._root.agent_of, self._root.catalog
        return Thread(info.id, threads, self._journal, agent_of, catalog, is_new=is_new)

    async def _create(self, threads: ThreadAccess, info: ThreadInfo, items: Sequence[Item]) -> bool:
        """Creates a thread; one with a key is created once. Returns whether this call did it."""
        known = await self._known(info)
        if known is None:
            try:
                await threads.create(info, items)
            except JournalError:
                known = await self._known(info)  # another task or process was quicker
                if known is None:
                    raise
        if known is not None and known.key_digest != info.key_digest:
            raise Conflict(
                f"The thread with the key {info.key[:100]!r} was created with another agent, "
                "metadata, history or store; use connect(key=…) to get it."
            )
        return known is None

    async def _known(self, info: ThreadInfo) -> ThreadInfo | None:
        if info.key:
            with contextlib.suppress(ThreadNotFound):
                return await self._journal.info(info.id)
        return None

    async def import_thread(
        self, lines: Lines, *, owner: str = "", keep_id: bool = False
    ) -> Thread:
        """Adds the thread that `Thread.export` returned, with its files; returns it.

        - `lines`: the lines of an export in their order, as bytes or texts; the whole export, or a
          file opened for reading, works as well. At most 1 GiB.
        - `owner`: the owner of the thread, by default that of the view. The owner that the export
          names is not used.
        - `keep_id`: whether the thread keeps its id, its `key` and those of its messages, so that
          links to it and `connect(key=…)` work again; by default it gets a new id and no keys. Only
          in a view of all owners, and with the `owner` that the export names, because no id is ever
          used for threads of two owners.

        The events, their numbers and times, and the runs stay as they were. What was under way is
        ended: a run and its jobs are cancelled, schedules as well. Nothing is counted as spent, and
        a subscription of the runtime is told of the new thread only. A thread with `store=False` is
        kept for 10 minutes from now. The agent may be unknown here until a message is sent.

        An export can contain whatever its sender wrote, such as outputs of tools and the principals
        who approved them. Import only what comes from a place that you trust with that.

        All is checked before anything is stored. Raises `ExportInvalid`, which names the line, for
        an export that is damaged, was cut, is too long or comes from a newer version; `Conflict` if
        the id to keep is in use; and `InvalidInput`.
        """
        threads, owner = self._reach(), self._owned(owner)
        if keep_id and self.owner is not None:
            raise InvalidInput(
                "keep_id=True is for a view of all owners, because the id may be that of another; "
                "leave it out, or import through the runtime with owner=…."
            )
        id = "" if keep_id else new_id("thread")
        info, seed, files = await asyncio.to_thread(read_export, lines, id, now())
        if keep_id and info.owner != owner:
            raise InvalidInput(
                f"keep_id=True keeps the owner as well; pass owner={shown(info.owner)}, or leave "
                "keep_id out."
            )
        if not info.key or info.id != id_of_key(owner, info.key):
            info = replace(info, key="", key_digest="")
        info = replace(info, owner=owner)
        try:
            await threads.import_thread(info, seed, files)
        except JournalError as error:
            with contextlib.suppress(ThreadNotFound):
                await self._all.info(info.id)
                raise Conflict(
                    f"The thread {info.id} exists already; delete it first, or import without "
                    "keep_id to get a copy."
                ) from error
            raise
        agent_of, catalog = self._root.agent_of, self._root.catalog
        return Thread(info.id, threads, self._journal, agent_of, catalog, is_new=True)

    async def connect(self, thread_id: str = "", *, key: str = "", owner: str = "") -> Thread:
        """Returns a thread that exists; raises `ThreadNotFound`.

        It is named by its id, or by the `key` that it was created with and its `owner`, by default
        that of the view. It takes nothing away from another runtime, and loads nothing: an entry
        does that.
        """
        threads = self._reach()
        if require_text("key", key):
            if thread_id:
                raise InvalidInput("connect takes a thread_id or a key, not both.")
            thread_id = id_of_key(self._owned(owner), key)
        await self._journal.info(require_text("thread_id", thread_id))
        return Thread(thread_id, threads, self._journal, self._root.agent_of, self._root.catalog)

    async def memory(self, name: str, *, owner: str = "", create: bool = True) -> Memory:
        """Returns the memory that threads of an owner share under a name; see `Block.shared`.

        It is created if it does not exist; with `create=False` it raises `ThreadNotFound` instead.
        Raises `InvalidInput` for a name that is none and for an owner that is not valid UTF-8.
        """
        threads = self._reach()
        owner = self._owned(owner)
        if create:
            return Memory(await threads.shared(owner, name), threads, self._journal)
        id = shared_id(owner, name)
        await self._journal.info(id)
        return Memory(id, threads, self._journal)

    async def memories(
        self, *, limit: int = 50, after: str = "", owner: str | None = None
    ) -> Page[ThreadInfo]:
        """Returns a page of the shared memories: at most `limit` (up to 1,000), the oldest first.

        `memory` is the name of each, with which `memory(name, owner=…)` returns it. Texts of an
        owner's archive that belong to no thread are kept in the memory `archive`.

        - `after`: `Page.next` of the page before.
        - `owner`: only those of this owner; None lists those of all owners of the view.

        Raises `InvalidInput` for a limit below 1, and for an `after` that is not a cursor.
        """
        self._reach()
        query = ThreadQuery(
            limit=min(require_count("limit", limit, 1), MAX_PAGE),
            after=require_text("after", after),
            owner=self._listed(owner),
            order="created",
            memories=True,
        )
        return await self._journal.threads(query)

    def archive(self, *, owner: str = "") -> Archive:
        """Returns the archive of an owner: texts that belong to no conversation, and those of all.

        It opens with the first use.
        """
        return Archive(self._reach(), self._journal, owner=self._owned(owner))

    @property
    def files(self) -> Files:
        """The files of the owner of the view; those of all owners in a view of all.

        Raises `JournalClosed`.
        """
        threads = self._reach()
        return Files(threads.file_store, owner=self.owner)

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
        """Returns the messages of an owner's conversations that fit `text` best.

        - `thread_id`: of this thread only. `roles`: said by one of them.
        - `since`, `until`, `by`, `limit`, `offset`: as in `Archive.search`.

        Raises as that does.
        """
        filters = filters_of("message", thread_id=thread_id, roles=roles, since=since, until=until)
        archive = self._reach().archive
        owner = self._owned(owner)
        return await archive.search(owner, text, by=by, filters=filters, limit=limit, offset=offset)

    async def delete_owner(self, owner: str = "") -> None:
        """Deletes all threads of an owner, shared memories, and all that they remember.

        A view deletes those of its own owner. What is made for the owner meanwhile may stay. Raises
        `InvalidInput` without an owner, since threads without one may belong to different programs,
        and `JournalLocked` if another process drives the threads.
        """
        threads = self._reach()
        owner = self._owned(owner)
        if not owner:
            raise InvalidInput(
                "The owner is empty; name the owner whose threads are to be deleted."
            )
        marks = await self._journal.marks(owner=owner)
        for mark in sorted(marks, key=lambda mark: bool(mark.parent)):
            with contextlib.suppress(ThreadNotFound):  # with the thread for which it worked
                await threads.delete(mark.id)
        await threads.file_store.drop_owner(owner)
        await threads.archive.sweep(owner)

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
        """Returns a page of threads: at most `limit` (up to 1,000), those used last first.

        - `after`: `Page.next` of the page before, asked for with the same `order`.
        - `owner`: only threads of this owner; None lists those of all owners of the view.
        - `parent`: the threads on which agents work for that thread, which are left out otherwise.
        - `status`: only threads whose newest run has this status, or one of several.
        - `agent`: only threads of the agent with this name.
        - `metadata`: only threads whose metadata has all these fields, with equal values.
        - `order`: by the last change (`"-updated"`, `"updated"`) or the creation (`"-created"`,
          `"created"`); `-` lists the newest first.

        No thread is listed twice. A thread that is used while the pages are read moves to the front
        of `"-updated"`, so a reader that has not come to it yet misses it; an order by creation
        lists each thread. Raises `InvalidInput` for a limit below 1, a value that is not known, and
        an `after` that is not a cursor of this order.
        """
        self._reach()
        require_choice("order", order, ThreadOrder)
        statuses = (status,) if isinstance(status, str) else tuple(status)
        for one in statuses:
            require_choice("status", one, RunStatus)
        query = ThreadQuery(
            limit=min(require_count("limit", limit, 1), MAX_PAGE),
            after=require_text("after", after),
            owner=self._listed(owner),
            parent=require_text("parent", parent),
            status=statuses,
            agent=require_text("agent", agent),
            metadata=checked_metadata(metadata or {}),
            order=order,
        )
        return await self._journal.threads(query)

    async def run(self, run_id: str, *, owner: str | None = None) -> ThreadRun:
        """Returns a run of any thread, or of a thread of `owner`; raises `RunNotFound`.

        It is found once `send` has returned, in any process. `ThreadRun.thread_id` is the thread,
        `ThreadRun.info()` what lists show. A copy of a thread has the same runs; while both exist,
        the run of the thread that was created first is returned.
        """
        threads = self._reach()
        require_text("run_id", run_id)
        record = await self._journal.find_run(run_id, owner=self._listed(owner))
        if record is None:
            raise RunNotFound(f"There is no run {run_id[:100]!r}.")
        return ThreadRun(record.id, record.thread_id, threads, self._journal, self._root.agent_of)

    def subscribe(
        self,
        *,
        types: Iterable[str | type[DurableEvent]] = (),
        after: str | None = None,
        owner: str | None = None,
    ) -> DeskSubscription:
        """Returns what happens on all threads from now on; iterate it.

        - `types`: only events of these types, as classes or words (`"run.completed"`). There are
          `thread.created`, `thread.updated`, `thread.deleted`, `run.queued`, `run.started`,
          `run.requires_action`, `run.cancelling` and the ends of runs, `job.started` and
          `job.settled`, and of calls that wait for an answer `tool.requested`, `tool.approved` and
          `tool.output`.
        - `after`: the `position` of an event, a subscription or a page of `calls()`: the events
          behind it come first. `"start"` is before all events, None is now.
        - `owner`: only events of the threads of this owner.

        No event is missed and none comes twice, also for a reader that comes back in another
        process. Raises `InvalidInput` for a type that is not known; where the subscription begins,
        it raises that for an `after` that is not a position.
        """
        self._reach()
        words: list[str] = []
        for one in require_list("types", types, 'types=["run.completed"]'):
            word = getattr(one, "type", one)
            if not isinstance(word, str) or word not in DESK_TYPES:
                known = ", ".join(sorted(DESK_TYPES))
                raise InvalidInput(
                    f"types contains {shown(one)}, which a runtime does not report; use {known}. "
                    "Thread.subscribe reports all events of one thread."
                )
            words.append(word)
        if after is not None and not require_text("after", after):
            raise InvalidInput('after is empty; pass a position, "start", or None for now.')
        return DeskSubscription(self._journal, self._listed(owner), words, after or "")

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
        """Returns a page of the calls that wait for an answer, those that wait longest first.

        Answer one with the methods of its thread, such as `Thread.approve`. A call whose answer is
        on its way to the process that drives the thread is not listed.

        - `limit`: the most calls in the page, up to 1,000. `after`: `Page.next` of the page before.
          `Page.position` is where `subscribe` continues what the first page shows.
        - `owner`, `thread_id`, `agent`: only calls of this owner, thread or agent.
        - `awaits`: only `"approval"`s, or only calls that need an `"output"` from outside.

        Calls of agents that work for other agents are listed with their own threads. Raises
        `InvalidInput`.
        """
        self._reach()
        if awaits is not None:
            require_choice("awaits", awaits, Awaited)
        query = CallQuery(
            limit=min(require_count("limit", limit, 1), MAX_PAGE),
            after=require_text("after", after),
            owner=self._listed(owner),
            thread_id=require_text("thread_id", thread_id),
            agent=require_text("agent", agent),
            awaits=awaits,
        )
        return await self._journal.calls(query)

    async def schedules(
        self, *, limit: int = 50, after: str = "", owner: str | None = None
    ) -> Page[Schedule]:
        """Returns a page of the schedules of all threads: at most `limit` (up to 1,000).

        The one that is due first is the first.

        - `after`: `Page.next` of the page before.
        - `owner`: only schedules of threads of this owner; None lists those of all owners of the
          view.

        Raises `InvalidInput` for a limit below 1, and for an `after` that is not a cursor.
        """
        self._reach()
        limit = min(require_count("limit", limit, 1), MAX_PAGE)
        last = key_at(require_text("after", after), "due", _SchedulePlace) if after else None
        place: DuePlace | None = (last[0], "schedule", *last[1:]) if last is not None else None
        due = await self._journal.due(
            limit=limit + 1, after=place, kind="schedule", owner=self._listed(owner)
        )
        page, more = due[:limit], due[limit:]
        return Page(
            [
                replace(one.schedule, thread_id=one.thread_id)
                for one in page
                if one.schedule is not None
            ],
            cursor("due", page[-1].at, page[-1].id, page[-1].number) if more else "",
        )

    async def spending(
        self, *, owner: str = "", period: Period = "month", tz: str = "UTC"
    ) -> Spending:
        """Returns the tokens and the cost that an owner has spent today or this month so far.

        - `owner`: by default that of the view; threads without an owner are counted together.
        - `period`, `tz`: as in `SpendingLimit`.

        It contains runs in progress, and threads that were deleted. Raises `InvalidInput`.
        """
        self._reach()
        begin, end = period_at(now(), period, tz)
        owner = self._owned(owner)
        return await self._journal.spending(owner, since=begin.timestamp(), until=end.timestamp())

    def _owned(self, owner: str) -> str:
        """Returns the owner that is meant; raises `InvalidInput` for one outside of the view."""
        require_text("owner", owner)
        if self.owner is None:
            return owner
        if owner not in {"", self.owner}:
            raise InvalidInput(
                "This view reaches the threads of one owner, and owner=… names another; leave it "
                "out, or use for_owner of the runtime."
            )
        return self.owner

    def _listed(self, owner: str | None) -> str | None:
        if self.owner is None:
            return owner if owner is None else require_text("owner", owner)
        return self._owned("" if owner is None else owner)

    def _reach(self) -> ThreadAccess:
        threads = self._root.reach()
        if self.owner is None and not self.by:
            return threads
        return OwnedAccess(threads, self._guard, self.by)


def id_of_key(owner: str, key: str) -> str:
    """Returns the id of the thread that was created with a key of an owner."""
    # With the length of the owner, so that no two pairs are joined to the same text.
    return id_of("thread", "key", str(len(owner)), owner, key)


def _digest(info: ThreadInfo, items: Sequence[Item]) -> str:
    """Returns what identifies the arguments that a thread is created with.

    When it expires is not compared, because a time that is computed from now moves on.
    """
    content = without_new_ids(items)
    named = (info.agent, info.metadata, content)
    encoded = msgspec.json.encode(named if info.store else (*named, "unstored"), order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:32]
