"""What a request does to its thread: a message, answers to calls, or a look at a run."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from treadle.clock import now
from treadle.domain.events import (
    MessageAdded,
    ReasoningAdded,
    RunRequiresAction,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.item_pages import all_items, find_item
from treadle.domain.items import FunctionCall, Item, Message
from treadle.domain.state import Run, ThreadState
from treadle.errors import (
    Conflict,
    InvalidInput,
    RunNotInProgress,
    ThreadNotFound,
    UnknownToolCall,
)
from treadle.journal.projection import RunRecord
from treadle.loop.definition import AgentDefinition
from treadle.runtime.run_subscription import RunSubscription
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.ag_ui.block_state import BlockState
from treadle.server.ag_ui.interrupts import Decision, decisions_of
from treadle.server.ag_ui.message_list import (
    MessageList,
    history_of,
    output_in,
    user_message_of,
)
from treadle.server.ag_ui.run_frames import Json
from treadle.server.ag_ui.run_input import (
    DeveloperMessage,
    InputMessage,
    RunAgentInput,
    RunQuery,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from treadle.server.ag_ui.run_mapper import RunMapper, to_user_of
from treadle.server.ag_ui.run_options import run_options
from treadle.server.ag_ui.waiting_agents import interrupts_of_agents
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.problems import RequestRefused
from treadle.server.run_events import run_events
from treadle.server.run_parts import RunParts

Request = ApiRequest[RunQuery, RunAgentInput]
Agent = AgentDefinition[Any, Any]

TRIES = 10
"""How often a message is sent again because something else was said at the same moment."""

RUNS = 50
"""Among how many runs, the newest ones, that of a message is looked for."""


class InputRefused(Exception):
    """A request that does not fit the conversation: the protocol wants a RUN_ERROR for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StartedRun(NamedTuple):
    """The frames of a run, and the events that they are made of."""

    mapper: RunMapper
    source: RunSubscription
    run: ThreadRun


class _Answers(NamedTuple):
    """Outputs and decisions for calls, by the ids of the calls and of the interrupts."""

    outputs: dict[str, ToolMessage]
    decisions: dict[str, Decision]


async def start_run(request: Request, agent: Agent) -> StartedRun:
    """Does what a request asks for; raises `InputRefused`."""
    thread = await _find_thread(request, agent)
    tries = 0
    while True:
        try:
            return await _RunStart(request, agent, thread, await thread.state()).start()
        except Conflict:  # something was said since the state was read
            tries += 1
            if tries == TRIES:
                raise


async def _find_thread(request: Request, agent: Agent) -> Thread:
    """Returns the thread that a request names; creates it with what goes before its messages."""
    runtime, given = request.runtime, request.body
    owner = own_owner(request, None)
    try:
        if given.thread_id.startswith("thread_"):
            return await runtime.connect(given.thread_id)
    except ThreadNotFound:
        pass  # an id of the client may look like that
    try:
        return await runtime.connect(key=given.thread_id, owner=owner)
    except ThreadNotFound:
        pass
    last = len(given.messages)
    while last and isinstance(given.messages[last - 1], UserMessage):
        last -= 1
    if last == len(given.messages):
        raise _no_input()
    before = given.messages[:last]
    if any(isinstance(one, SystemMessage | DeveloperMessage) for one in before):
        request.require("admin", "A message of the role system or developer")
    history = history_of(before)
    # All of it is checked first, so that a request that is refused leaves no thread behind.
    new = [user_message_of(one) for one in given.messages[last:] if isinstance(one, UserMessage)]
    every = [*(one for one in history if isinstance(one, Message)), *new]
    request.services.limits.require_size(every)
    run_options(agent, given)
    await request.services.limits.require_run(runtime, owner, "")
    try:
        return await runtime.create_thread(
            agent.name, owner=owner, history=history, key=given.thread_id
        )
    except Conflict:  # another request created it at the same moment
        return await runtime.connect(key=given.thread_id, owner=owner)


def _no_input() -> RequestRefused:
    return RequestRefused(
        400, "no_input", "The last of messages must be a message of the user that is new."
    )


async def _decide(thread: Thread, decision: Decision) -> None:
    if decision.approved:
        await thread.approve(decision.call_id, arguments=decision.arguments)
    else:
        await thread.deny(decision.call_id, decision.reason)


class _RunStart:
    """Decides what a request does to a thread that is in `state`."""

    def __init__(self, request: Request, agent: Agent, thread: Thread, state: ThreadState) -> None:
        self._request = request
        self._given = request.body
        self._agent = agent
        self._thread = thread
        self._state = state
        self._items = all_items(state)

    async def start(self) -> StartedRun:
        new = self._new_messages()
        run, pending = self._state.active_run, self._pending()
        answers = self._answers(pending)
        if run is not None and (answers.outputs or answers.decisions):
            return await self._answer(run, pending, answers, new)
        others = await interrupts_of_agents(self._request.runtime, self._state)
        open = [id for id, awaits in pending.items() if awaits == "approval"]
        open += [str(one["id"]) for one in others]
        if open and (new or pending):
            raise InputRefused(
                "interrupts_open",
                f"The conversation waits for an answer to {', '.join(id[:100] for id in open)}; "
                "send it as resume.",
            )
        if new:
            return await self._send(new, is_waiting=bool(pending))
        return await self._join(others)

    def _new_messages(self) -> list[UserMessage]:
        """Returns the messages of the user that the thread does not have."""
        state = self._state
        known = {getattr(item, "id", "") for item in self._items}
        known |= {one.item.id for one in state.steering}
        for queued in state.queue:
            known |= {queued.item.id, *(one.id for one in queued.before)}
        new = {
            one.id: one
            for one in self._given.messages
            if isinstance(one, UserMessage) and one.subagent_run_id is None and one.id not in known
        }
        return list(new.values())

    def _pending(self) -> dict[str, str]:
        """Returns what each call that waits needs, if the run waits for them."""
        run, step = self._state.active_run, self._state.step
        if run is None or run.status != "requires_action" or step is None:
            return {}
        found = {call.call_id: step.awaits_of(call.call_id) for call in step.awaited}
        return {call_id: awaits for call_id, awaits in found.items() if awaits is not None}

    def _answers(self, pending: Mapping[str, str]) -> _Answers:
        """Returns the answers to calls that wait; raises `InputRefused` for an unknown interrupt.

        An answer to a call that has one already has no effect, so that a request may be repeated.
        """
        outputs = {
            one.tool_call_id: one
            for one in self._given.messages
            if isinstance(one, ToolMessage) and pending.get(one.tool_call_id) == "output"
        }
        try:
            decisions = decisions_of(self._given.resume or ())
        except InvalidInput as error:
            raise InputRefused(error.code, error.message) from error
        calls = {item.call_id for item in self._items if isinstance(item, FunctionCall)}
        open: dict[str, Decision] = {}
        for id, decision in decisions.items():
            if decision.thread_id or pending.get(id) == "approval":
                open[id] = decision
            elif id not in calls:
                raise InputRefused("unknown_interrupt", f"There is no interrupt {id[:100]!r}.")
        return _Answers(outputs, open)

    # Answers

    async def _answer(
        self,
        run: Run,
        pending: Mapping[str, str],
        answers: _Answers,
        new: Sequence[UserMessage],
    ) -> StartedRun:
        outputs, decisions = answers
        missing = [id for id in pending if id not in outputs and id not in decisions]
        if missing:
            raise InputRefused(
                "answers_missing",
                f"There is no answer to {', '.join(id[:100] for id in missing)}; answer all calls "
                "that wait in one request.",
            )
        if decisions:
            self._request.require("approve", "To approve a call")
        # All of it is checked first, so that a request that is refused has done nothing.
        messages = self._messages(new)
        given = {id: output_in(message) for id, message in outputs.items()}
        threads = {one.thread_id: await self._working_thread(one) for one in decisions.values()}
        followed = await self._thread.run(run.id)
        source = await followed.subscribe(self._state.seq)
        try:
            # Attached before the answers: what other agents do then is live only.
            await source.wait()
            # Those with arguments first, which the tool may not take.
            for decision in sorted(decisions.values(), key=lambda one: one.arguments is None):
                await _decide(threads[decision.thread_id], decision)
            if messages:  # they enter the history after the outputs
                await self._thread.send(messages, on_busy="steer")
            for id, output in given.items():
                failed = outputs[id].error is not None
                await self._thread.submit_tool_output(id, output, is_error=failed)
        except BaseException as error:
            await source.aclose()
            if isinstance(error, InvalidInput | Conflict | UnknownToolCall | RunNotInProgress):
                raise InputRefused(error.code, error.message) from error
            raise
        started = self._started(followed, source, self._items, [*outputs.values(), *new])
        others = await interrupts_of_agents(self._request.runtime, await self._thread.state())
        if left := [one for one in others if one["id"] not in decisions]:
            started.mapper.wait_for(left, now())
        return started

    async def _working_thread(self, decision: Decision) -> Thread:
        """Returns the thread of a call: this one, or that of an agent that works for it."""
        id = at = decision.thread_id
        if not id:
            return self._thread
        for _ in range(self._agent.limits.max_depth + 1):
            try:
                work = (await (await self._request.runtime.connect(at)).info()).work
            except ThreadNotFound:
                break
            if work is None:
                break
            if work.thread_id == self._thread.id:
                return await self._request.runtime.connect(id)
            at = work.thread_id
        raise InputRefused("unknown_interrupt", f"No agent works on the thread {id[:100]!r}.")

    # Messages

    def _messages(self, new: Sequence[UserMessage]) -> list[Message]:
        messages = [user_message_of(one) for one in new]
        self._request.services.limits.require_size(messages)
        return messages

    async def _send(self, new: Sequence[UserMessage], *, is_waiting: bool) -> StartedRun:
        request, thread, agent = self._request, self._thread, self._agent
        options = run_options(agent, self._given)
        owner = request.principal.owner
        if owner is None:
            owner = (await thread.info()).owner
        await request.services.limits.require_run(request.runtime, owner, thread.id)
        run = await thread.send(
            self._messages(new),
            # A client that does not answer its calls, but sends a message, has given up on them.
            on_busy="cancel" if is_waiting else "queue",
            expect=self._state.seq,
            agent=agent.name,
            **options,
        )
        return self._started(run, await run.subscribe(), self._items, new)

    async def _join(self, others: Sequence[Json]) -> StartedRun:
        """Shows the run that answers the last message once more: the request was sent before.

        If it waits for the interrupts `others`, its client is only told so.
        """
        sent = [one for one in self._given.messages if isinstance(one, UserMessage)]
        if not sent:
            raise _no_input()
        runs = await self._thread.runs(limit=RUNS, order="desc")
        record = next((one for one in runs if one.message_id == sent[-1].id), None)
        if record is None:
            raise InputRefused("nothing_new", "The messages contain none that is new.")
        run = await self._thread.run(record.id)
        if others and self._state.run is not None and self._state.run.id == run.id:
            started = self._started(run, await run.subscribe(), self._items, ())
            started.mapper.wait_for(others, now())
            return started
        place = find_item(self._items, record.message_id)
        items = self._items[: len(self._items) if place is None else place + 1]
        since, seen, calls = await self._last_answered(record)
        known = {one.id for one in (*items, *seen) if isinstance(one, Message)}
        new = [
            one
            for one in self._given.messages
            if (isinstance(one, ToolMessage) and one.tool_call_id in calls)
            or (isinstance(one, UserMessage) and one.id not in known)
        ]
        source = await run.subscribe(since or None)
        until = None if since else self._given.messages.index(sent[-1])
        return self._started(run, source, [*items, *seen], new, until)

    async def _last_answered(
        self, record: RunRecord
    ) -> tuple[int, Sequence[Item], Collection[str]]:
        """Returns the number of the last end of a part whose calls the request answers, or 0.

        The other values are what the run had added to the conversation until then, and the calls.
        """
        given = self._given
        answered = {one.tool_call_id for one in given.messages if isinstance(one, ToolMessage)}
        answered |= {one.interrupt_id for one in given.resume or ()}
        since, seen, calls, items = 0, list[Item](), tuple[str, ...](), list[Item]()
        asked: tuple[str, ...] = ()
        parts = RunParts()
        if not (answered and record.first_seq):
            return 0, (), ()
        async for event in run_events(self._thread, record, record.first_seq):
            match event:
                case RunRequiresAction():
                    asked = event.call_ids
                case MessageAdded() | ReasoningAdded() | ToolCallRequested() | ToolOutputRecorded():
                    items.append(event.item)
                case _:
                    pass
            if parts.feed(event) and answered.issuperset(asked):
                since, seen, calls = event.seq, list(items), asked
        return since, seen, calls

    # Frames

    def _started(
        self,
        run: ThreadRun,
        source: RunSubscription,
        items: Sequence[Item],
        new: Sequence[InputMessage],
        until: int | None = None,
    ) -> StartedRun:
        """Returns the run; what other agents said counts up to message `until` of the client."""
        given, state = self._given, self._state
        shown = MessageList(to_user_of(self._agent), given)
        for item in items:
            shown.add(item)
        for one in given.messages[:until]:
            if one.subagent_run_id is not None:
                shown.add_given(one)
        blocks = BlockState(given.state, state.memory, state.seq)
        mapper = RunMapper(given, self._agent, shown, blocks, decisions_of(given.resume or ()))
        mapper.begin(self._thread.id, run.id, new)
        return StartedRun(mapper, source, run)
