"""What entries do, over random threads: whatever is accepted can be recorded."""

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from treadle.domain.accept import StartRun, StopJob, accept, acknowledged
from treadle.domain.blocks import AppendText, Block, CreateBlock, DeleteBlock, RewriteBlock
from treadle.domain.entries import (
    ApprovalEntry,
    CancelEntry,
    CancelJobEntry,
    DenialEntry,
    EditEntry,
    Entry,
    FinishEntry,
    InsertEntry,
    OutputEntry,
    PinEntry,
    RemoveEntry,
    RemoveEventEntry,
    SendEntry,
    UndoEntry,
)
from treadle.domain.events import (
    JobSettled,
    JobStarted,
    MemoryUpdated,
    MessageAdded,
    RecordedEvent,
    ResponseCompleted,
    RunCancelled,
    RunCompleted,
    RunRequiresAction,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
)
from treadle.domain.fold import apply
from treadle.domain.ids import id_of
from treadle.domain.items import FunctionCall, user_message
from treadle.domain.passages import NewPassage
from treadle.domain.removal import Removal, removal_of
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import (
    ChangeNotUndoable,
    Conflict,
    InvalidTransition,
    RunInProgress,
    TreadleError,
    UnknownToolCall,
)

RUNS = [f"run_{n}" for n in range(4)]
CALLS = ["c1", "c2"]
LABELS = ["a", "b"]

entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        SendEntry,
        run_id=st.sampled_from(RUNS),
        item=st.just(user_message("hi")),
        on_busy=st.sampled_from(["queue", "steer", "reject", "cancel"]),
        agent=st.just("a"),
        key=st.sampled_from(["", "k"]),
    ),
    st.builds(OutputEntry, st.sampled_from(CALLS), st.sampled_from(["x", "y"]), st.booleans()),
    st.builds(ApprovalEntry, st.sampled_from(CALLS)),
    st.builds(DenialEntry, st.sampled_from(CALLS)),
    st.builds(CancelEntry, st.sampled_from(RUNS)),
    st.builds(FinishEntry, st.sampled_from(RUNS)),
    st.builds(CancelJobEntry, st.sampled_from(["job_1", "job_2"])),
    st.builds(PinEntry, st.just("msg_x"), st.booleans()),
    st.builds(
        EditEntry,
        st.one_of(
            st.builds(CreateBlock, st.builds(Block, st.sampled_from(LABELS), st.text(max_size=3))),
            st.builds(AppendText, st.sampled_from(LABELS), st.sampled_from(["x", "yy"])),
            st.builds(RewriteBlock, st.sampled_from(LABELS), st.sampled_from(["", "z"])),
            st.builds(DeleteBlock, st.sampled_from(LABELS)),
        ),
        key=st.sampled_from(["", "once"]),
    ),
    st.builds(UndoEntry, st.sampled_from(LABELS), st.just(0)),
    st.just(InsertEntry((NewPassage("passage_1", "text", 1.0),))),
    st.just(RemoveEntry("passage_1")),
    st.builds(RemoveEventEntry, st.integers(0, 30)),
)
moves = st.sampled_from(["step", "call", "respond", "close", "end", "job", "settle"])


class Story:
    """A thread as its entries and its loop make it; `record` refuses what cannot follow."""

    def __init__(self) -> None:
        self.state = ThreadState()
        self.events: list[RecordedEvent] = []
        self.changes: list[MemoryUpdated] = []

    def record(self, *events: RecordedEvent) -> None:
        for event in events:
            event = replace(event, seq=self.state.seq + 1, at=1.0)
            self.state = apply(self.state, event)
            self.events.append(event)
            if isinstance(event, MemoryUpdated):
                self.changes.append(event)

    def take(self, entry: Entry) -> None:
        """Does what the process that drives does with what `accept` returns."""
        removal = self.removal(entry)
        accepted = accept(self.state, entry, changes=self._undone(entry), removal=removal)
        match accepted:
            case StartRun():
                assert isinstance(entry, SendEntry)
                self.record(
                    MessageAdded(run_id=entry.run_id, item=entry.item, origin="user"),
                    RunStarted(run_id=entry.run_id, agent="a"),
                )
            case StopJob():
                assert accepted.job_id in self.state.jobs
            case _:
                self.record(*accepted)
        for event in removal.events if removal is not None else ():
            self.events[event.seq - 1] = event

    def removal(self, entry: Entry) -> Removal | None:
        if not isinstance(entry, RemoveEventEntry):
            return None
        return removal_of(self.events, entry.seq, entry.item)

    def _undone(self, entry: Entry) -> Sequence[MemoryUpdated]:
        known = [one for one in self.changes if isinstance(entry, UndoEntry)]
        return [one for one in known if one.label == getattr(entry, "label", "")][-1:]

    def move(self, move: str) -> None:
        """Lets the loop do something, if it can."""
        run, step = self.state.active_run, self.state.step
        if run is None:
            return
        if run.status == "cancelling":
            if step is None and not self.state.jobs:
                for waiting in self.state.steering:  # acknowledged, so they enter in any case
                    self.record(MessageAdded(run_id=run.id, item=waiting.item, origin="user"))
                self.record(RunCancelled(run_id=run.id, usage=Usage()))
            elif step is not None and not step.pending:
                self.record(StepInterrupted(run_id=run.id, step=step.number, reason="cancel"))
        elif move == "step" and step is None:
            self.record(StepStarted(run_id=run.id, step=run.steps + 1, model="m"))
        elif move == "call" and step is not None and step.finish_reason is None:
            for index, call_id in enumerate(CALLS):
                awaits = "approval" if index else "output"
                call = FunctionCall(f"{call_id}", "tool", "{}", f"fc_{call_id}_{run.steps}")
                if step.call(call_id) is None:
                    self.record(
                        ToolCallRequested(run_id=run.id, item=call, index=index, awaits=awaits)
                    )
        elif move == "respond" and step is not None and step.finish_reason is None:
            self.record(
                ResponseCompleted(
                    run_id=run.id, response_id="r", finish_reason="stop", usage=Usage()
                )
            )
            if step.awaited:
                ids = tuple(call.call_id for call in step.awaited)
                self.record(RunRequiresAction(run_id=run.id, call_ids=ids))
        elif move == "close" and step is not None and step.finish_reason and not step.pending:
            self.record(StepCompleted(run_id=run.id, step=step.number))
        elif move == "end" and step is None and run.steps and not self.state.jobs:
            if not self.state.steering:
                self.record(RunCompleted(run_id=run.id, stop_reason="end_turn", usage=Usage()))
        elif move == "job" and "job_1" not in self.state.jobs:
            self.record(JobStarted(run_id=run.id, job_id="job_1", name="job"))
        elif move == "settle" and "job_1" in self.state.jobs:
            self.record(JobSettled(run_id=run.id, job_id="job_1", outcome="completed"))


@given(st.lists(st.one_of(entries, moves), max_size=40))
def test_what_is_accepted_can_be_recorded(script: list[Entry | str]) -> None:
    story, known = Story(), set[str]()
    for one in script:
        if isinstance(one, str):
            story.move(one)
            continue
        if isinstance(one, SendEntry):
            if one.run_id in known:
                continue  # a run has one message that starts it
            known.add(one.run_id)
        before = story.state
        try:
            story.take(one)
        except InvalidTransition:
            raise  # an event that cannot follow was accepted
        except TreadleError:
            pass
        else:
            continue
        assert story.state is before
    folded = ThreadState()
    for event in story.events:
        folded = apply(folded, event)
    assert folded == story.state


@given(st.lists(st.one_of(entries, moves), max_size=25), entries)
def test_what_was_said_before_changes_nothing(script: list[Entry | str], entry: Entry) -> None:
    if isinstance(entry, SendEntry | UndoEntry | InsertEntry | RemoveEntry | EditEntry):
        return  # these have keys, or ids of their own, against being repeated
    story = Story()
    for one in script:
        if isinstance(one, str):
            story.move(one)
        else:
            with contextlib.suppress(TreadleError):
                story.take(one)
    try:
        story.take(entry)
    except TreadleError:
        return
    again = accept(story.state, entry, removal=story.removal(entry))
    assert isinstance(again, StopJob) or not again


def busy() -> Story:
    story = Story()
    story.take(SendEntry("run_0", user_message("hi"), agent="a"))
    return story


def test_a_message_to_a_busy_thread() -> None:
    story, item = busy(), user_message("more")
    with pytest.raises(RunInProgress):
        accept(story.state, SendEntry("run_1", item, "reject"))
    for on_busy, kinds in (
        ("queue", ["RunQueued"]),
        ("steer", ["MessageQueued"]),
        ("cancel", ["RunCancelling", "RunQueued"]),
    ):
        accepted = accept(story.state, SendEntry("run_1", item, on_busy))  # type: ignore[arg-type]
        assert [type(event).__name__ for event in accepted] == kinds  # type: ignore[union-attr]


def test_a_message_that_was_acknowledged_is_not_refused() -> None:
    story, item = busy(), user_message("more")
    rejecting = acknowledged("t", story.state, SendEntry("run_1", item, "reject"))
    assert (rejecting.on_busy, rejecting.run_id) == ("queue", "run_1")
    steering = SendEntry("run_0", item, "steer", key="k")
    assert acknowledged("t", story.state, steering) is steering
    late = acknowledged("t", ThreadState(), steering)
    assert late.run_id == id_of("run", "t", "k")
    assert acknowledged("t", ThreadState(), replace(steering, key="")).run_id != late.run_id


def test_refusals_have_their_types() -> None:
    story = busy()
    with pytest.raises(UnknownToolCall):
        accept(story.state, ApprovalEntry("c1"))
    with pytest.raises(UnknownToolCall):
        accept(ThreadState(), OutputEntry("c1", "x"))
    with pytest.raises(ChangeNotUndoable):
        accept(story.state, UndoEntry("a", 0))
    for move in ("step", "call", "respond"):
        story.move(move)
    story.take(OutputEntry("c1", "x"))
    with pytest.raises(Conflict):
        accept(story.state, OutputEntry("c1", "y"))
    assert accept(story.state, CancelEntry("run_9")) == ()
    assert accept(story.state, FinishEntry("run_9")) == ()
    assert accept(story.state, CancelJobEntry("job_9")) == ()
