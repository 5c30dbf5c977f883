"""A thread as its users hold it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Literal, NamedTuple, overload

import msgspec
from msgspec.structs import replace
from typing_extensions import Unpack

from treadle.actors.access import Receipt, ThreadAccess
from treadle.actors.host import AnyAgent
from treadle.actors.thread_export import file_line, files_in, header_line
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.clock import now
from treadle.domain.arguments import require_choice, require_count, require_text, shown
from treadle.domain.entries import (
    AddEntry,
    ApprovalEntry,
    CancelJobEntry,
    CancelScheduleEntry,
    DenialEntry,
    OnBusy,
    OutputEntry,
    PinEntry,
    RemoveEventEntry,
    ScheduleEntry,
    SendEntry,
    UpdateEntry,
)
from treadle.domain.events import Awaited, RecordedEvent
from treadle.domain.history import HistoryUnread
from treadle.domain.ids import id_of, new_id, run_id_of_key
from treadle.domain.inputs import (
    as_history,
    as_messages,
    checked_output,
    messages_to_send,
    with_ids,
    without_new_ids,
)
from treadle.domain.item_pages import all_items, find_item, page_of_items
from treadle.domain.items import FunctionCall, Input, Item, Message, Role
from treadle.domain.metadata import MAX_TITLE, checked_metadata
from treadle.domain.options import RunOptions
from treadle.domain.page import MAX_PAGE, Page
from treadle.domain.passages import By, Found
from treadle.domain.removal import item_with
from treadle.domain.removed_items import visible
from treadle.domain.retention import Expiry, expiry_time
from treadle.domain.schedules import Schedule
from treadle.domain.state import OpenJob, Run, ThreadState
from treadle.domain.usage import Spent
from treadle.errors import InvalidInput, ItemNotFound, RunNotFound
from treadle.journal.base import Direction, JournalReader, ThreadInfo
from treadle.journal.projection import RunRecord
from treadle.loop.catalog import Catalog
from treadle.loop.options import OptionArguments, Output, make_options
from treadle.memory.archive.query import Moment, filters_of
from treadle.runtime.archive import Archive
from treadle.runtime.edited_arguments import edited_arguments
from treadle.runtime.files import Files
from treadle.runtime.memory import Memory
from treadle.runtime.positions import require_reached
from treadle.runtime.state_subscription import StateSubscription
from treadle.runtime.thread_run import ThreadRun
from treadle.runtime.thread_view import ThreadView, view_of
from treadle.schedules.new_schedule import listed, new_schedule
from treadle.tools.output import encode_output
from treadle.tools.threads import NeverStarted

MAX_OUTPUT_CHARS = 100_000


class PendingCall(NamedTuple):
    """A call that waits for an answer from outside, and the kind of that answer."""

    call: FunctionCall
    awaits: Awaited


class Thread:
    """A conversation that is kept: send to it, watch it, answer what it asks for.

    A handle costs nothing; any number of them, here and in other processes, may be used at the
    same time. Everything raises `ThreadNotFound` once the thread is deleted, and `JournalError`
    when the journal fails.

    `is_new` is True if the `create_thread` that returned this handle made the thread, and False if
    it found the one that was created with the same key before.
    """

    def __init__(
        self,
        id: str,
        threads: ThreadAccess,
        journal: JournalReader,
        agent_of: Callable[[Run], AnyAgent],
        catalog: Catalog,
        *,
        is_new: bool = False,
    ) -> None:
        self.id = id
        self.is_new = is_new
        self._threads = threads
        self._journal = journal
        self._agent_of = agent_of
        self._catalog = catalog

    def __repr__(self) -> str:
        return f"Thread({self.id!r})"

    async def send(
        self,
        message: Input | Sequence[Input],
        *,
        on_busy: OnBusy = "queue",
        key: str = "",
        agent: str = "",
        expect: int | None = None,
        so_far: Sequence[object] = (),
        output: Output | None = None,
        **options: Unpack[OptionArguments],
    ) -> ThreadRun:
        """Sends a message and returns the run that answers it, once it cannot be lost any more.

        A list of messages is answered by one run. An empty list sends none: the run answers what
        the history ends with, for example a message that was added, or whose run has failed. It
        does not wait for its turn: `RunInProgress` is raised while another run is active or waits.

        - `on_busy`: what becomes of the message while a run is active; see `OnBusy`.
        - `key`: sent again, it returns the run of the first time and sends nothing. Another
          message with the same key is a `Conflict`.
        - `agent`: the name of the agent that answers; by default that of the thread.
        - `expect`: the number of the last event that the sender has seen. If the conversation has
          gone on since, `Conflict` is raised and nothing is sent. Events of memory, jobs and
          compaction do not count.
        - `so_far`: items with which the answer begins, as a history that follows the message: for
          example calls that another program made, with their outputs. The run continues after
          them. They are data: rules and limits do not count them.
        - `model`, `settings`, `instructions`, `extra_instructions`, `tools`, `tool_choice`,
          `output`, `limits`, `metadata`: options of this run. They are kept with it, so that
          another process resumes it with them. What is not a text or JSON, such as a function, is
          kept by its name; that process must know it by `treadle.open(models=…, tools=…,
          outputs=…)`.

        Raises `InvalidInput` for an empty message and for one of another form than `Input`,
        `RunInProgress` with `on_busy="reject"`, `UnknownAgent`, and `InvalidInput` for options
        and `so_far` with `on_busy="steer"`. Options that cannot work together raise
        `ConfigurationError`, and names that are not known `UnknownOption`; if another process
        drives the thread, its run fails or waits instead. With `expect`, the process that drives
        the threads decides, so `NotDriven` is raised if there is none.
        """
        require_choice("on_busy", on_busy, OnBusy)
        require_text("key", key)
        require_text("agent (the name of an agent)", agent)
        if expect is not None:
            require_count("expect", expect, 0)
        given = make_options(self._catalog, options, output, function="send", is_kept=True)
        begun = with_ids(as_history(so_far))
        messages = messages_to_send(message)
        if not messages:
            if begun or on_busy == "steer":
                raise InvalidInput(
                    "Without a message, a run has neither so_far nor steers another."
                )
            expect = await self.last_seq() if expect is None else expect
        entry = self._entry(messages, key, begun, expect=expect, options=given)
        entry = replace(entry, on_busy=on_busy, agent=agent)
        return self._sent(await self._threads.submit(self.id, entry))

    async def send_after(
        self,
        seq: int,
        message: Input | Sequence[Input],
        *,
        key: str = "",
        agent: str = "",
        output: Output | None = None,
        **options: Unpack[OptionArguments],
    ) -> ThreadRun:
        """Sends a message right after event number `seq`: here if that is possible, else in a copy.

        If nothing was said after event `seq` and no run is active or waits, the message is sent to
        this thread. Otherwise the thread is forked at event `seq`, as by `fork`, and the message is
        sent there; the `thread_id` of the run tells which. Of several senders that continue the
        same event, one continues this thread.

        The parameters are those of `send`; with a `key`, a repeated call returns the same run. The
        process that drives the threads decides; raises `NotDriven` if there is none, and
        `InvalidInput` for an event that the thread does not have.
        """
        require_text("key", key)
        require_text("agent (the name of an agent)", agent)
        require_count("seq", seq, 0)
        given = make_options(self._catalog, options, output, function="send_after", is_kept=True)
        entry = self._entry(as_messages(message), key, (), str(seq), expect=seq, options=given)
        fork = id_of("thread", "fork", self.id, key or entry.run_id)
        entry = replace(entry, agent=agent, fork=fork)
        return self._sent(await self._threads.submit(self.id, entry))

    def _entry(
        self,
        messages: Sequence[Message],
        key: str,
        so_far: Sequence[Item],
        *names: str,
        expect: int | None,
        options: RunOptions | None,
    ) -> SendEntry:
        # A message that is sent again promises the same run, however far the first one got.
        run_id = run_id_of_key(self.id, key) if key else new_id("run")
        before, item = messages[:-1], messages[-1] if messages else None
        if key and item is not None:  # so that another one can be told from it
            content = [msgspec.json.encode(one.content).decode() for one in messages]
            if options is not None:
                content.append(msgspec.json.encode(options, order="deterministic").decode())
            if so_far:
                content.append(msgspec.json.encode(without_new_ids(so_far)).decode())
            item = replace(item, id=id_of("msg", self.id, key, *names, *content))
        return SendEntry(
            run_id,
            item,
            key=key,
            options=options,
            before=tuple(before),
            so_far=tuple(so_far),
            expect=expect,
        )

    async def add(self, items: object, *, key: str = "", expect: int | None = None) -> None:
        """Adds items to the history without a run; the next run reads them.

        - `items`: a list of items, or of their forms in the OpenAI APIs; each call must have its
          output. They may have any role: pass what a client sent through `user_messages` first.
        - `key`: added again, it has no effect. Other items with the same key are a `Conflict`.
        - `expect`: as in `send`.

        All of them are added, or none. Raises `InvalidInput` for items of another form,
        `RunInProgress` while a run is active or waits, and `NotDriven` as `send` does.
        """
        require_text("key", key)
        if expect is not None:
            require_count("expect", expect, 0)
        added = with_ids(as_history(items))
        if not added:
            raise InvalidInput("There are no items to add; pass at least one.")
        digest = id_of("msg", self.id, key, msgspec.json.encode(without_new_ids(added)).decode())
        await self._threads.submit(self.id, AddEntry(tuple(added), key, digest, expect))

    async def schedule(
        self,
        message: Input,
        *,
        at: datetime | None = None,
        after: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | tzinfo = "UTC",
        key: str = "",
        agent: str = "",
        output: Output | None = None,
        **options: Unpack[OptionArguments],
    ) -> Schedule:
        """Sends a message later; returns its schedule once it cannot be lost any more.

        The message starts a run when it is due, in whichever process drives the thread then. If
        that is too late, because no process ran, one run is started, however many times were
        missed. A run in progress is waited for, and if the run before has not begun yet, the
        schedule starts no second one.

        - `at`: a datetime with a time zone; one in the past is due now. `after`: a delay in
          seconds, or a timedelta. `cron`: again and again, by the five fields of cron, in the time
          zone `tz`. Exactly one of them.
        - `tz`: the name of a time zone, or a `zoneinfo.ZoneInfo`.
        - `key`: the same key makes one schedule; another message, cron, agent or other options
          with it are a `Conflict`. It may be used again once the schedule was cancelled.
        - `agent`: the name of the agent that answers; by default that of the thread.
        - `model`, `settings`, …, `output`: options of its runs, as those of `send`.

        Raises `InvalidInput`, `UnknownAgent`, and `TooManySchedules` beyond 100 of a thread, and
        for options what `send` raises.
        """
        given = make_options(self._catalog, options, output, function="schedule", is_kept=True)
        schedule = new_schedule(
            self.id,
            message,
            now(),
            at=at,
            after=after,
            cron=cron,
            tz=tz,
            key=key,
            agent=agent,
            options=given,
        )
        await self._threads.submit(self.id, ScheduleEntry(schedule))
        if key:  # it may have been there before
            state = await self._threads.head(self.id)
            schedule = state.schedules.get(schedule.id, schedule)
        return replace(schedule, thread_id=self.id)

    async def schedules(self) -> Sequence[Schedule]:
        """Returns the schedules that are due in future, the one that is due first first."""
        return listed(self.id, (await self._threads.head(self.id)).schedules.values())

    async def cancel_schedule(self, schedule_id: str) -> None:
        """Cancels a schedule; does nothing for one that is over. Runs that have begun continue."""
        require_text("schedule_id", schedule_id)
        await self._threads.submit(self.id, CancelScheduleEntry(schedule_id))

    # A position that is "state" is known as such where it is a literal only.
    @overload
    def subscribe(  # pyright: ignore[reportOverlappingOverload]
        self, after: Literal["state"]
    ) -> StateSubscription: ...

    @overload
    def subscribe(self, after: int | str | Position = 0) -> Subscription: ...

    def subscribe(self, after: int | str | Position = 0) -> Subscription | StateSubscription:
        """Returns the events after a position, those to come included; iterate it.

        `after` is the number of a durable event, from 0, or the `position` where an earlier
        subscription stood. With `"state"` the first one is a `ThreadView`, the present state, and
        the events after it continue that: for readers that open a thread without its past events.
        Raises `InvalidInput` for anything else, including a position behind the last event.
        """
        if after == "state":
            return StateSubscription(self.view, self._events_after)
        return self._events_after(after)

    def _events_after(self, after: int | str | Position) -> Subscription:
        position = Position.parse(after)
        require_reached(self._threads, self.id, position)
        return Subscription(
            lambda: self._threads.topic(self.id),
            lambda after, until: self._journal.read(self.id, after=after, until=until),
            position,
            follow=lambda after: self._threads.follow(self.id, after),
        )

    async def submit_tool_output(
        self, call_id: str, output: object, *, is_error: bool = False
    ) -> None:
        """Answers an external call; `output` is what a tool may return.

        The same output again has no effect. Raises `UnknownToolCall`, `Conflict` when the call
        has another output, `RunNotInProgress`, and `InvalidInput` for an output that is not JSON.
        """
        require_text("call_id", call_id)
        try:
            converted = checked_output(await encode_output(output, MAX_OUTPUT_CHARS))
        except NeverStarted as error:
            raise InvalidInput(f"output cannot be encoded now: {error}.") from error
        except TypeError as error:
            raise InvalidInput(
                f"output cannot be represented as JSON, it is {shown(output)}; pass a text, "
                "numbers, lists, dicts, models or images."
            ) from error
        await self._threads.submit(self.id, OutputEntry(call_id, converted, bool(is_error)))

    async def approve(self, call_id: str, *, arguments: Mapping[str, object] | None = None) -> None:
        """Lets a call that needs approval run; raises as `submit_tool_output` does.

        - `arguments`: the call runs with these, in place of all that the model wrote: a JSON object
          that fits the schema of the tool. The history has them from then on, so the model reads
          what was run; `FunctionCall.proposed` keeps what it wrote. An announcement to the user
          (`to_user`) stays unless it is given. Those that the model wrote change nothing.

        Raises `InvalidInput` for arguments that do not fit the schema, and `Conflict` for a call
        that was approved with other arguments.
        """
        require_text("call_id", call_id)
        edited = ""
        if arguments is not None:
            try:
                head = await self._threads.head(self.id)
                edited = edited_arguments(head, call_id, arguments)
            except HistoryUnread:  # the call is an old one
                edited = edited_arguments(await self.state(), call_id, arguments)
        await self._threads.submit(self.id, ApprovalEntry(call_id, edited))

    async def deny(self, call_id: str, reason: str = "") -> None:
        """Denies a call; the model reads the reason. Raises as `submit_tool_output` does."""
        require_text("call_id", call_id)
        require_text("reason", reason)
        await self._threads.submit(self.id, DenialEntry(call_id, reason))

    async def pin(self, message_id: str) -> None:
        """Keeps a message in the model's window, whatever else leaves it.

        Raises `UnknownMessage` for one that the history does not have. In another process than the
        one that drives the thread, it waits for that one, and raises `VerdictUnknown` after 30 s.
        """
        require_text("message_id", message_id)
        await self._threads.submit(self.id, PinEntry(message_id))

    async def unpin(self, message_id: str) -> None:
        """Lets a pinned message leave the window like others; does nothing for one that is not."""
        require_text("message_id", message_id)
        await self._threads.submit(self.id, PinEntry(message_id, pinned=False))

    async def remove_event(self, seq: int, item: Item | None = None) -> None:
        """Removes the item that event number `seq` added to the history, and its content.

        The event keeps its number and becomes an `EventRemoved`; a tool call leaves together with
        its output. The model does not read the item from its next step on, and a search does not
        find it. Copies of the thread, summaries and what a tool did stay as they are.

        - `item`: one of the items of event `seq`, if that is a `HistoryReplaced` or `ItemsAdded`.

        A second call does nothing. Raises `InvalidInput` for an event that adds no item, and
        `Conflict` for an item of the step in progress.
        """
        await self._threads.submit(self.id, RemoveEventEntry(require_count("seq", seq, 1), item))

    async def remove_item(self, id: str) -> None:
        """Removes an item of the conversation by its id, in the way of `remove_event`.

        Raises `ItemNotFound`, also for one that was removed before, and `Conflict` for an item of
        the step in progress.
        """
        await self.item(id)
        after = 0
        while page := await self.events(after):
            for event in page:
                if (item := item_with(event, id)) is not None:
                    await self._threads.submit(self.id, RemoveEventEntry(event.seq, item))
                    return
            after = page[-1].seq
        raise ItemNotFound(f"The thread {self.id} has no item {id[:100]!r}.")

    async def jobs(self) -> Sequence[OpenJob]:
        """Returns the jobs that have not settled, in the order in which they were started."""
        return tuple((await self._threads.head(self.id)).jobs.values())

    async def cancel_job(self, job_id: str) -> None:
        """Cancels a job, and all that it started; does nothing for one that has settled.

        Its `JobSettled` event reports its end.
        """
        require_text("job_id", job_id)
        await self._threads.submit(self.id, CancelJobEntry(job_id))

    @property
    def memory(self) -> Memory:
        """The memory blocks of the thread; those it shares are in `Runtime.memory`."""
        return Memory(self.id, self._threads, self._journal)

    @property
    def archive(self) -> Archive:
        """The archive: what is put into it here belongs to the thread, and is deleted with it."""
        return Archive(self._threads, self._journal, thread_id=self.id)

    async def search(
        self,
        text: str,
        *,
        roles: Sequence[Role] = (),
        since: Moment | None = None,
        until: Moment | None = None,
        by: By = "both",
        limit: int = 10,
        offset: int = 0,
    ) -> list[Found]:
        """Returns the messages of this conversation that fit `text` best, from all its history.

        `roles`: of these roles only. The other parameters and the errors are those of
        `Archive.search`. `Runtime.search` searches all conversations.
        """
        filters = filters_of("message", thread_id=self.id, roles=roles, since=since, until=until)
        owner = (await self._journal.info(self.id)).owner
        return await self._threads.archive.search(
            owner, text, by=by, filters=filters, limit=limit, offset=offset
        )

    async def info(self) -> ThreadInfo:
        """Returns what lists show of the thread."""
        return await self._journal.info(self.id)

    async def state(self) -> ThreadState:
        """Returns the fold of the events so far: run, open step, queue and history."""
        return await self._threads.state(self.id)

    async def view(self) -> ThreadView:
        """Returns the present state in one value, as `subscribe(after="state")` begins with it.

        `subscribe(view.position)` continues it.
        """
        # The list entry first: what changes in between is in the events after the position.
        info = await self._journal.info(self.id)
        return view_of(info, await self._threads.state(self.id))

    async def history(self) -> Sequence[Item]:
        """Returns the conversation so far, without the step that is open."""
        state = await self._threads.state(self.id)
        return visible(state.history) if state.context.removed else state.history

    async def events(self, after: int = 0, limit: int = 500) -> list[RecordedEvent]:
        """Returns at most `limit` durable events after number `after`."""
        return await self._journal.read(
            self.id, after=require_count("after", after, 0), limit=require_count("limit", limit, 1)
        )

    async def last_seq(self) -> int:
        """Returns the number of the last durable event, 0 without events."""
        return await self._journal.last_seq(self.id)

    async def item(self, id: str) -> Item:
        """Returns an item of the conversation, or one that is finished in the step in progress.

        Raises `ItemNotFound`, also for one that was removed.
        """
        items = all_items(await self._threads.state(self.id))
        place = find_item(items, require_text("id", id))
        if place is None:
            raise ItemNotFound(f"The thread {self.id} has no item {id[:100]!r}.")
        return items[place]

    async def items(
        self, *, limit: int = 50, after: str = "", order: Direction = "asc"
    ) -> Page[Item]:
        """Returns a page of the conversation: at most `limit` items (up to 1,000).

        - `after`: `Page.next` of the page before, or the id of an item.
        - `order`: `"asc"` lists the oldest first, `"desc"` the newest.

        What is finished of the step in progress is listed, items that were removed are not. Raises
        `InvalidInput` for another `after`.
        """
        require_choice("order", order, Direction)
        limit = min(require_count("limit", limit, 1), MAX_PAGE)
        items = all_items(await self._threads.state(self.id))
        return page_of_items(items, limit, require_text("after", after), order)

    async def update(
        self,
        *,
        title: str | None = None,
        metadata: Mapping[str, object] | None = None,
        expires_at: Expiry | None = None,
    ) -> None:
        """Changes what lists show of the thread; subscribers get a `ThreadUpdated`.

        - `title`: the new title, of at most 500 characters; with "", the next message gives it.
        - `metadata`: the fields to set, as JSON; None removes a field. Others keep their values.
        - `expires_at`: when the thread is deleted, a datetime with a time zone, or `"never"`.

        It is durable when this returns, and applies once the process that drives the thread has
        taken it. Raises `InvalidInput`, also if there is nothing to change and for a time that is
        over.
        """
        if title is None and metadata is None and expires_at is None:
            raise InvalidInput(
                "There is nothing to change; give title=…, metadata={…} or expires_at=…."
            )
        if title is not None and len(require_text("title", title)) > MAX_TITLE:
            raise InvalidInput(f"title has {len(title)} characters; use at most {MAX_TITLE}.")
        fields = None if metadata is None else checked_metadata(metadata)
        expiry: float | Literal["never"] | None = None
        if expires_at is not None:
            expiry = "never" if expires_at == "never" else expiry_time(expires_at, now())
        await self._threads.submit(self.id, UpdateEntry(title, fields, expiry))

    async def usage(self) -> Spent:
        """Returns what the thread has used up: all its runs, and the work outside of runs."""
        return (await self._threads.head(self.id)).spent

    async def runs(
        self, *, limit: int = 50, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of the thread: at most `limit` of them (up to 1,000).

        - `after`: `Page.next` of the page before, asked for with the same `order`.
        - `order`: `"asc"` lists the oldest first, `"desc"` the newest; the place of a run is that
          of its first event, so it stays the same when the run starts or ends.

        Raises `InvalidInput` for an `after` that is not a cursor of this order.
        """
        require_choice("order", order, Direction)
        limit = min(require_count("limit", limit, 1), MAX_PAGE)
        after = require_text("after", after)
        return await self._journal.runs(self.id, limit=limit, after=after, order=order)

    async def run(self, run_id: str) -> ThreadRun:
        """Returns a run of the thread, even if its message waits in an inbox.

        Raises `RunNotFound`. `Runtime.run` finds a run without its thread.
        """
        require_text("run_id", run_id)
        if await self._journal.find_run(run_id, thread_id=self.id) is None:
            await self._journal.info(self.id)  # raises if there is no such thread
            raise RunNotFound(f"The thread {self.id} has no run {run_id[:100]!r}.")
        return self._run(run_id)

    async def active_run(self) -> ThreadRun | None:
        """Returns the run that has not ended, if there is one."""
        run = (await self._threads.head(self.id)).active_run
        return self._run(run.id) if run is not None else None

    async def pending_calls(self) -> Sequence[PendingCall]:
        """Returns the calls that wait for an output or an approval from outside."""
        step = (await self._threads.head(self.id)).step
        if step is None:
            return ()
        return [
            PendingCall(call, awaits)
            for call in step.awaited
            if (awaits := step.awaits_of(call.call_id)) is not None
        ]

    async def fork(self, at: int | None = None) -> "Thread":
        """Copies the thread up to and with event number `at`; None copies all of it.

        A run that was under way there is cancelled in the copy. Raises `InvalidInput` for an
        event that the thread does not have.
        """
        if at is not None:
            require_count("at", at, 0)
        forked = await self._threads.fork(self.id, at)
        return Thread(forked, self._threads, self._journal, self._agent_of, self._catalog)

    @property
    def files(self) -> Files:
        """The files that the thread uses: those of its messages, and of outputs of tools."""
        threads = self._threads
        return Files(threads.file_store, owner=threads.owner, thread_id=self.id)

    async def export(self) -> list[bytes]:
        """Returns the thread as JSON lines, which `RuntimeView.import_thread` reads.

        The first line is a header: the version of the format, and the agent, the metadata and the
        times of the thread. Then the durable events follow as they are stored, even if they cannot
        be read, and before each event the files that it is the first to mention, in base64.
        Messages that wait for the process that drives the thread are not part of it.
        """
        info = await self._journal.info(self.id)
        last = await self._journal.last_seq(self.id)
        lines: list[bytes] = []
        events, at, contents = 0, 0, set[str]()
        while at < last and (page := await self._journal.stored(self.id, after=at)):
            for seq, event in page.items():
                if seq > last:
                    break
                for id in files_in(event):
                    if id not in contents and (line := await self._file_line(id)) is not None:
                        contents.add(id)
                        lines.append(line)
                lines.append(event)
                events += 1
            at = max(page)
        return [header_line(info, events=events, files=len(contents)), *lines]

    async def _file_line(self, id: str) -> bytes | None:
        store = self._threads.file_store
        info = await store.info(id, thread_id=self.id)
        content = await store.content(id, thread_id=self.id)
        if info is None or content is None:
            return None  # a text that looks like the id of a file
        return await asyncio.to_thread(file_line, info, content)

    async def repair(self) -> list[int]:
        """Removes the events that cannot be read, or that no longer fit; returns their numbers.

        They become `EventRemoved`, and the conversation continues with the others. Entries of the
        inbox that cannot be read are removed, too. Use it for a thread that raises
        `ThreadDamaged`; it changes no other. Raises `JournalLocked` in a process
        that does not drive the database.
        """
        return await self._threads.repair(self.id)

    async def delete(self) -> None:
        """Interrupts the run, and removes the thread with everything that belongs to it."""
        await self._threads.delete(self.id)

    def _run(self, run_id: str) -> ThreadRun:
        return ThreadRun(run_id, self.id, self._threads, self._journal, self._agent_of)

    def _sent(self, receipt: Receipt) -> ThreadRun:
        return ThreadRun(
            receipt.run_id,
            receipt.thread_id or self.id,
            self._threads,
            self._journal,
            self._agent_of,
            is_driven=receipt.is_driven,
            after=receipt.after,
        )
