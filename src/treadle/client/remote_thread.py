"""A thread on a server as its users hold it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Literal, overload

import msgspec
from typing_extensions import Unpack

from treadle.bus.position import Position
from treadle.client.address import segment
from treadle.client.connection import Connection
from treadle.client.known_agents import KnownAgents
from treadle.client.listed import Listed, read_events
from treadle.client.problem_errors import error_of_problem
from treadle.client.remote_archive import RemoteArchive, text_of_moment
from treadle.client.remote_files import RemoteFiles
from treadle.client.remote_memory import RemoteMemory
from treadle.client.remote_run import RemoteRun, position_now
from treadle.client.remote_subscription import RemoteSubscription
from treadle.clock import now
from treadle.domain.arguments import (
    require_choice,
    require_count,
    require_object,
    require_text,
    shown,
)
from treadle.domain.entries import OnBusy
from treadle.domain.events import RecordedEvent
from treadle.domain.fold import apply
from treadle.domain.ids import new_id
from treadle.domain.inputs import as_history, as_messages, checked_output, messages_to_send
from treadle.domain.items import Input, Item, Message, Role
from treadle.domain.metadata import checked_metadata
from treadle.domain.options import RunOptions
from treadle.domain.page import MAX_PAGE, Page
from treadle.domain.passages import By, Found
from treadle.domain.retention import Expiry, expiry_time
from treadle.domain.schedules import Schedule
from treadle.domain.state import ACTIVE, OpenJob, ThreadState
from treadle.domain.usage import Spent
from treadle.errors import (
    InvalidInput,
    ItemNotFound,
    ThreadNotFound,
    UnknownMessage,
    UnknownOption,
    UnknownToolCall,
)
from treadle.journal.base import Direction, ThreadInfo, WaitingCall
from treadle.journal.projection import RunRecord
from treadle.loop.options import OptionArguments, Output, make_options
from treadle.memory.archive.query import Moment, filters_of
from treadle.runtime.state_subscription import StateSubscription
from treadle.runtime.thread import MAX_OUTPUT_CHARS, PendingCall
from treadle.runtime.thread_view import ThreadView
from treadle.schedules.new_schedule import new_schedule
from treadle.server.bodies import Answered, Repaired, Sent
from treadle.tools.output import encode_output
from treadle.tools.threads import NeverStarted


class RemoteThread:
    """A thread on a server, with the methods of `treadle.Thread` that the HTTP API has.

    A handle costs nothing. Requests are repeated while the server cannot be reached, as long as a
    repetition has no effect of its own. Everything raises the errors of `Thread`, and the kinds of
    `RequestFailed`.

    `is_new` is as in `Thread`. It is False, too, if the answer to the request that made the thread
    was lost.
    """

    def __init__(
        self,
        id: str,
        connection: Connection,
        known: KnownAgents,
        *,
        is_new: bool = False,
    ) -> None:
        self.id = id
        self.is_new = is_new
        self._connection = connection
        self._known = known

    def __repr__(self) -> str:
        return f"RemoteThread({self.id!r})"

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
    ) -> RemoteRun:
        """Sends a message and returns the run that answers it, once it cannot be lost any more.

        The parameters are those of `Thread.send`. Without a `key` it gets one of its own, so that
        the request can be repeated and the message is sent once. Options must be among those that
        the agent lets callers change (`Agent.overridable`); of a model, a tool or an output type
        only the name is sent, which the server must know, and an `output` is sent as its schema.
        `so_far` needs a key of the server with the scope `admin`.

        Raises `OptionNotAllowed` besides what `Thread.send` raises.
        """
        require_choice("on_busy", on_busy, OnBusy)
        given = make_options(self._known.catalog, options, output, function="send", is_kept=True)
        body: dict[str, object] = {"on_busy": on_busy}
        if expect is not None:
            body["expect"] = require_count("expect", expect, 0)
        if begun := as_history(so_far):
            body["so_far"] = list(begun)
        body |= _messages(messages_to_send(message))
        return await self._send(body, key, agent, given)

    async def send_after(
        self,
        seq: int,
        message: Input | Sequence[Input],
        *,
        key: str = "",
        agent: str = "",
        output: Output | None = None,
        **options: Unpack[OptionArguments],
    ) -> RemoteRun:
        """Sends a message right after event number `seq`: here if that is possible, else in a copy.

        See `Thread.send_after`; the `thread_id` of the run tells which. The parameters are those of
        `send`.
        """
        given = make_options(
            self._known.catalog, options, output, function="send_after", is_kept=True
        )
        body: dict[str, object] = {"after": require_count("seq", seq, 0)}
        body |= _messages(as_messages(message))
        return await self._send(body, key, agent, given)

    async def _send(
        self,
        body: dict[str, object],
        key: str,
        agent: str,
        options: RunOptions | None,
    ) -> RemoteRun:
        body["agent"] = require_text("agent (the name of an agent)", agent)
        body["key"] = require_text("key", key) or new_id("evt")
        if options is not None:
            body["options"] = self._sent_options(options)
        sent = await self._connection.call("POST", f"{self._path}/messages", Sent, body=body)
        return self._run(sent.run_id, sent.thread_id, options)

    async def add(self, items: object, *, key: str = "", expect: int | None = None) -> None:
        """Adds items to the history without a run; the next run reads them; see `Thread.add`.

        With a `key`, the request is repeated if its answer is lost. Items other than messages of
        the user need a key of the server with the scope `admin`.
        """
        added = as_history(items)
        if not added:
            raise InvalidInput("There are no items to add; pass at least one.")
        body: dict[str, object] = {
            "items": list(added),
            "key": require_text("key", key),
        }
        if expect is not None:
            body["expect"] = require_count("expect", expect, 0)
        await self._connection.call("POST", f"{self._path}/items", body=body, repeats=bool(key))

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
        """Sends a message later; the parameters and errors are those of `Thread.schedule`.

        Without a `key` it gets one of its own, so that the request can be repeated. Options must be
        among those that the agent lets callers change, as those of `send`.
        """
        given = make_options(
            self._known.catalog, options, output, function="schedule", is_kept=True
        )
        # Refuses times as the runtime does, before anything is sent.
        made = new_schedule(
            self.id, message, now(), at=at, after=after, cron=cron, tz=tz, key=key, agent=agent
        )
        body: dict[str, object] = {
            **_messages([made.item]),
            "key": key or new_id("evt"),
            "agent": agent,
        }
        if given is not None:
            body["options"] = self._sent_options(given)
        if cron is not None:
            body |= {"cron": made.cron, "tz": made.tz}
        elif at is not None:
            body["at"] = made.due_at
        else:
            body["after"] = after.total_seconds() if isinstance(after, timedelta) else after
        return await self._connection.call("POST", f"{self._path}/schedules", Schedule, body=body)

    async def schedules(self) -> Sequence[Schedule]:
        """Returns the schedules that are due in future, the one that is due first first."""
        path = f"{self._path}/schedules"
        return tuple((await self._connection.get(path, Listed[Schedule])).data)

    async def cancel_schedule(self, schedule_id: str) -> None:
        """Cancels a schedule; does nothing for one that is over. Runs that have begun continue."""
        schedule = segment(require_text("schedule_id", schedule_id), InvalidInput, "schedule")
        await self._connection.call("DELETE", f"{self._path}/schedules/{schedule}")

    @overload
    def subscribe(  # pyright: ignore[reportOverlappingOverload]
        self, after: Literal["state"]
    ) -> StateSubscription: ...

    @overload
    def subscribe(self, after: int | str | Position = 0) -> RemoteSubscription: ...

    def subscribe(self, after: int | str | Position = 0) -> RemoteSubscription | StateSubscription:
        """Returns the events after a position, those to come included; iterate it.

        `after` is the number of a durable event, from 0, or the `position` where an earlier
        subscription stood, here or in another process; with `"state"` it begins with the present
        state, as `Thread.subscribe` does. Raises `InvalidInput` for what cannot be a position;
        iterating raises it for one behind the last event.
        """
        if after == "state":
            return StateSubscription(self.view, self._events_after)
        return self._events_after(after)

    def _events_after(self, after: int | str | Position) -> RemoteSubscription:
        position = Position.parse(after)
        return RemoteSubscription(self._connection, f"{self._path}/events", {}, position, "")

    async def submit_tool_output(
        self, call_id: str, output: object, *, is_error: bool = False
    ) -> None:
        """Answers an external call; `output` is what a tool may return.

        Raises as `Thread.submit_tool_output` does.
        """
        try:
            converted = checked_output(await encode_output(output, MAX_OUTPUT_CHARS))
        except NeverStarted as error:
            raise InvalidInput(f"output cannot be encoded now: {error}.") from error
        except TypeError as error:
            raise InvalidInput(
                f"output cannot be represented as JSON, it is {shown(output)}; pass a text, "
                "numbers, lists, dicts, models or images."
            ) from error
        value = converted if isinstance(converted, str) else list(converted)
        await self._answer("output", call_id, output=value, is_error=bool(is_error))

    async def approve(self, call_id: str, *, arguments: Mapping[str, object] | None = None) -> None:
        """Lets a call that needs approval run, with other `arguments` if they are given.

        Raises as `Thread.approve` does.
        """
        fields = {} if arguments is None else {"arguments": require_object("arguments", arguments)}
        await self._answer("approve", call_id, **fields)

    async def deny(self, call_id: str, reason: str = "") -> None:
        """Denies a call; the model reads the reason. Raises as `submit_tool_output` does."""
        await self._answer("deny", call_id, reason=require_text("reason", reason))

    async def _answer(self, kind: str, call_id: str, **fields: object) -> None:
        if not require_text("call_id", call_id):
            raise UnknownToolCall("The call_id is empty; pass that of a waiting call.")
        # The ids of calls come from models, and some contain characters that paths do not.
        body = {"answers": [{"type": kind, "call_id": call_id, **fields}]}
        answered: Listed[Answered] = await self._connection.call(
            "POST", f"{self._path}/calls", Listed[Answered], body=body
        )
        for one in answered.data:
            if one.problem is not None:
                raise error_of_problem(one.problem)

    async def pin(self, message_id: str) -> None:
        """Keeps a message in the model's window; see `Thread.pin`."""
        await self._connection.call("PUT", self._pin_of(message_id))

    async def unpin(self, message_id: str) -> None:
        """Lets a pinned message leave the window; does nothing for one that is not pinned."""
        await self._connection.call("DELETE", self._pin_of(message_id))

    def _pin_of(self, message_id: str) -> str:
        message = segment(require_text("message_id", message_id), UnknownMessage, "message")
        return f"{self._path}/items/{message}/pin"

    async def remove_event(self, seq: int, item: Item | None = None) -> None:
        """Removes the item that an event added, and its content; see `Thread.remove_event`."""
        path = f"{self._path}/events/{require_count('seq', seq, 1)}/remove"
        await self._connection.call("POST", path, body={} if item is None else {"item": item})

    async def repair(self) -> list[int]:
        """Removes the events that cannot be read; returns their numbers. See `Thread.repair`.

        It needs a key with the scope `admin`, and is not sent again if the answer is lost.
        """
        path = f"{self._path}/repair"
        return (await self._connection.call("POST", path, Repaired, repeats=False)).removed

    @property
    def files(self) -> RemoteFiles:
        """The files that the thread uses; what is put here is deleted with it."""
        return RemoteFiles(self._connection, thread_id=self.id)

    async def jobs(self) -> Sequence[OpenJob]:
        """Returns the jobs that have not settled, in the order in which they were started."""
        return tuple((await self._connection.get(f"{self._path}/jobs", Listed[OpenJob])).data)

    async def cancel_job(self, job_id: str) -> None:
        """Cancels a job, and all that it started; does nothing for one that has settled."""
        job = segment(require_text("job_id", job_id), InvalidInput, "job")
        await self._connection.call("POST", f"{self._path}/jobs/{job}/cancel")

    @property
    def memory(self) -> RemoteMemory:
        """The memory blocks of the thread."""
        return RemoteMemory(self._connection, thread_id=self.id)

    @property
    def archive(self) -> RemoteArchive:
        """The archive: what is put into it here belongs to the thread, and is deleted with it."""
        return RemoteArchive(self._connection, thread_id=self.id)

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
        """Returns the messages of this conversation that fit `text` best."""
        return await search(
            self._connection,
            text,
            thread_id=self.id,
            owner=(await self.info()).owner,
            roles=roles,
            since=since,
            until=until,
            by=by,
            limit=limit,
            offset=offset,
        )

    async def info(self) -> ThreadInfo:
        """Returns what lists show of the thread."""
        return await self._connection.get(self._path, ThreadInfo)

    async def view(self) -> ThreadView:
        """Returns the present state in one answer: history, run, step, calls, queue and jobs.

        Events after its `position` continue it.
        """
        return await self._connection.get(f"{self._path}/state", ThreadView)

    async def state(self) -> ThreadState:
        """Returns the fold of the events so far: run, open step, queue and history.

        It reads all events; `view` needs one answer.
        """
        state = ThreadState()
        for event in await read_events(self._connection, self.id, 0, None):
            state = apply(state, event)
        return state

    async def history(self) -> Sequence[Item]:
        """Returns the conversation so far, without the step that is open."""
        return (await self.view()).items

    async def events(self, after: int = 0, limit: int = 500) -> list[RecordedEvent]:
        """Returns at most `limit` durable events after number `after`."""
        after, limit = require_count("after", after, 0), require_count("limit", limit, 1)
        return await read_events(self._connection, self.id, after, limit)

    async def last_seq(self) -> int:
        """Returns the number of the last durable event, 0 without events."""
        return Position.parse(await position_now(self._connection, self.id)).seq

    async def item(self, id: str) -> Item:
        """Returns an item of the conversation; raises `ItemNotFound`."""
        item = segment(require_text("id", id), ItemNotFound, "item")
        return await self._connection.call("GET", f"{self._path}/items/{item}", Item)

    async def remove_item(self, id: str) -> None:
        """Removes an item of the conversation by its id; see `Thread.remove_item`."""
        item = segment(require_text("id", id), ItemNotFound, "item")
        await self._connection.call("DELETE", f"{self._path}/items/{item}")

    async def items(
        self, *, limit: int = 50, after: str = "", order: Direction = "asc"
    ) -> Page[Item]:
        """Returns a page of the conversation: at most `limit` items (up to 1,000)."""
        query = _page_query(limit, after, order)
        return (await self._connection.get(f"{self._path}/items", Listed[Item], query)).page

    async def update(
        self,
        *,
        title: str | None = None,
        metadata: Mapping[str, object] | None = None,
        expires_at: Expiry | None = None,
    ) -> None:
        """Changes what lists show of the thread, and when it is deleted; see `Thread.update`."""
        if title is None and metadata is None and expires_at is None:
            raise InvalidInput(
                "There is nothing to change; give title=…, metadata={…} or expires_at=…."
            )
        body: dict[str, object] = {}
        if title is not None:
            body["title"] = require_text("title", title)
        if metadata is not None:
            body["metadata"] = checked_metadata(metadata)
        if expires_at is not None:
            body["expires_at"] = None if expires_at == "never" else expiry_time(expires_at, now())
        await self._connection.call("PATCH", self._path, body=body)

    async def usage(self) -> Spent:
        """Returns what the thread has used up: all its runs, and the work outside of runs."""
        return await self._connection.get(f"{self._path}/usage", Spent)

    async def runs(
        self, *, limit: int = 50, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of the thread: at most `limit` of them (up to 1,000)."""
        query = _page_query(limit, after, order)
        return (await self._connection.get(f"{self._path}/runs", Listed[RunRecord], query)).page

    async def run(self, run_id: str) -> RemoteRun:
        """Returns a run of the thread; raises `RunNotFound`."""
        run = self._run(require_text("run_id", run_id), self.id)
        await run.info()
        return run

    async def active_run(self) -> RemoteRun | None:
        """Returns the run that has not ended, if there is one."""
        run = (await self.view()).run
        if run is None or run.status not in ACTIVE:
            return None
        return self._run(run.id, self.id)

    async def pending_calls(self) -> Sequence[PendingCall]:
        """Returns the calls that wait for an output or an approval from outside."""
        found, after = list[PendingCall](), ""
        while True:
            page: Listed[WaitingCall] = await self._connection.get(
                f"{self._path}/calls", Listed[WaitingCall], {"limit": MAX_PAGE, "after": after}
            )
            found += [PendingCall(one.call, one.awaits) for one in page.data]
            if not page.next:
                return found
            after = page.next

    async def fork(self, at: int | None = None) -> "RemoteThread":
        """Copies the thread up to and with event number `at`; None copies all of it.

        It is not sent again if the answer is lost.
        """
        if at is not None:
            require_count("at", at, 0)
        info = await self._connection.call(
            "POST", f"{self._path}/fork", ThreadInfo, body={"at": at}, repeats=False
        )
        return RemoteThread(info.id, self._connection, self._known)

    async def export(self) -> list[bytes]:
        """Returns the thread as JSON lines, which `import_thread` reads; see `Thread.export`."""
        lines: bytes = await self._connection.get(f"{self._path}/export", bytes)
        return lines.removesuffix(b"\n").split(b"\n")

    async def delete(self) -> None:
        """Interrupts the run, and removes the thread with everything that belongs to it."""
        await self._connection.call("DELETE", self._path)

    @property
    def _path(self) -> str:
        return f"/threads/{segment(self.id, ThreadNotFound, 'thread')}"

    def _run(self, run_id: str, thread_id: str, options: RunOptions | None = None) -> RemoteRun:
        given = None if options is None else options.of_result
        return RemoteRun(run_id, thread_id, self._connection, self._known.agent_of, given)

    def _sent_options(self, options: RunOptions) -> RunOptions:
        """Returns options as another process understands them: output types as their schemas."""
        if not isinstance(options.output, str):
            return options
        try:
            output = self._known.catalog.output(options.output)
        except UnknownOption:
            return options  # the name of a type that the server knows
        return msgspec.structs.replace(options, output="str" if output is None else output.schema)


async def search(
    connection: Connection,
    text: str,
    *,
    thread_id: str = "",
    owner: str = "",
    roles: Sequence[Role] = (),
    since: Moment | None = None,
    until: Moment | None = None,
    by: By = "both",
    limit: int = 10,
    offset: int = 0,
) -> list[Found]:
    """Searches in messages; see `RuntimeView.search`."""
    # Refuses moments and roles as the runtime does, before anything is sent.
    filters_of("message", thread_id=thread_id, roles=roles, since=since, until=until)
    query: dict[str, Any] = {
        "text": require_text("text", text),
        "thread_id": thread_id,
        "owner": owner,
        "role": tuple(roles),
        "since": text_of_moment(since),
        "until": text_of_moment(until),
        "by": by,
        "limit": limit,
        "offset": offset,
    }
    return (await connection.get("/search", Listed[Found], query)).data


def _page_query(limit: int, after: str, order: Direction) -> dict[str, str | int]:
    require_choice("order", order, Direction)
    limit = min(require_count("limit", limit, 1), MAX_PAGE)
    return {"limit": limit, "after": require_text("after", after), "order": order}


def _messages(messages: Sequence[Message]) -> dict[str, object]:
    """Returns messages as the fields of a body; the server gives them their ids."""
    sent = [{"role": one.role, "content": one.content} for one in messages]
    return {"message": sent[0]} if len(sent) == 1 else {"messages": sent}
