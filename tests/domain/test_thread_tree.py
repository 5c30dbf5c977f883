"""The tree of a thread: whatever was told, it shows the runs, jobs and agents that there are."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_BELOW,
    BACK_BELOW_DONE,
    BACK_DELEGATED,
    BACK_DONE,
    CALL,
    CALL_2,
    DONE,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    JOB_BELOW_DONE,
    JOB_DELEGATED,
    JOB_DONE,
    OUTPUT,
    OUTPUT_2,
    RUNNING,
    STARTED,
    STEP,
    TEXT,
    R,
)
from tests.domain.test_state import EVENTS, is_repeated

from treadle.domain.events import (
    AgentEvent,
    DurableEvent,
    Event,
    HandedOff,
    JobSettled,
    RunCancelled,
    RunCancelling,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    TerminalEvent,
    TextDelta,
    ToolApproved,
    ToolDelegated,
)
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCallOutput, user_message
from treadle.domain.state import ThreadState
from treadle.domain.thread_tree import MAX_DETAIL, MAX_ENDED, ThreadTree, TreeNode
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition

USED = Usage()
DELEGATED = ToolDelegated(run_id=R, call_id="c1", agent="b", thread_id="thread_9")
QUEUED = RunQueued(run_id="run_2", item=user_message("more"), agent="b")


def told(*events: Event, tree: ThreadTree | None = None, since: float = 0.0) -> ThreadTree:
    """The tree of events that are a second apart."""
    tree = tree or ThreadTree()
    for n, event in enumerate(events, 1):
        if isinstance(event, DurableEvent):
            event = replace(event, at=since + n)  # type: ignore[type-var]
        tree.apply(event)
    return tree


def of_agent(
    *events: Event,
    thread: str = "thread_9",
    call_id: str = "c1",
    run: str = "run_9",
    at: float = 50,
) -> Iterator[AgentEvent]:
    """What happens on the thread of an agent, a second apart."""
    for n, event in enumerate(events):
        if isinstance(event, DurableEvent):
            event = replace(event, run_id=run, at=at + n)  # type: ignore[type-var]
        yield AgentEvent(call_id, "b", thread, event)


def test_a_run_with_jobs() -> None:
    tree = told(ASKED, STARTED, STEP, JOB, JOB_BELOW, BACK, JOB_BELOW_DONE, JOB_DONE, DONE)
    assert str(tree).splitlines() == [
        "run a  completed  7.0 s  run_1",
        "└─ job index  completed  2.5 s  job_1  indexed",
        "   └─ job page  failed  2.0 s  job_2  m",
        "background job crawl  in progress  job_3",
    ]
    run, back = tree.roots
    assert (run.kind, run.id, run.run_id, run.began, run.seconds) == ("run", R, R, 2.0, 7.0)
    assert (back.background, back.run_id, back.seconds) == (True, R, None)


def test_the_bars_of_a_tree_join_what_stands_on_one_level() -> None:
    again = replace(JOB, job_id="job_6")
    below = replace(JOB_BELOW, job_id="job_7")
    tree = told(STARTED, JOB, JOB_BELOW, below, again, BACK, BACK_BELOW)
    assert [line.split("  in progress")[0] for line in tree.lines()] == [
        "run a",
        "├─ job index",
        "│  ├─ job page",
        "│  └─ job page",
        "└─ job index",
        "background job crawl",
        "└─ background job fetch",
    ]


def test_an_empty_tree() -> None:
    assert str(ThreadTree()) == ""
    assert str(told(ASKED, STEP, TEXT, TextDelta("i", "x"))) == ""
    assert list(ThreadTree().agents()) == []


@pytest.mark.parametrize(
    ("end", "status", "detail"),
    [
        (DONE, "completed", ""),
        (RunIncomplete(run_id=R, stop_reason="max_steps", usage=USED), "incomplete", "max_steps"),
        (
            RunFailed(run_id=R, code="c", message="No\n connection.", retryable=True, usage=USED),
            "failed",
            "No connection.",
        ),
        (RunCancelled(run_id=R, usage=USED), "cancelled", ""),
        (RunExpired(run_id=R, usage=USED), "expired", ""),
    ],
)
def test_how_runs_end(end: DurableEvent, status: str, detail: str) -> None:
    (run,) = told(STARTED, end).roots
    assert (run.status, run.detail, run.seconds) == (status, detail, 1.0)


def test_a_run_that_waits_in_the_queue_began_when_it_was_started() -> None:
    tree = told(STARTED, QUEUED)
    assert [(run.name, run.status) for run in tree.roots] == [("a", "in_progress"), ("b", "queued")]
    told(DONE, RunStarted(run_id="run_2", agent="b"), tree=tree, since=10)
    assert [(run.status, run.began) for run in tree.roots] == [
        ("completed", 1.0),
        ("in_progress", 12.0),
    ]
    dropped = told(STARTED, QUEUED, RunCancelled(run_id="run_2", usage=USED))
    assert [run.status for run in dropped.roots] == ["in_progress", "cancelled"]


def test_a_hand_over_changes_the_name() -> None:
    tree = told(STARTED, HandedOff(run_id=R, agent="b"))
    assert [run.name for run in tree.roots] == ["b"]


def test_a_run_waits_until_all_is_answered() -> None:
    waits = RunRequiresAction(run_id=R, call_ids=("c1", "c2"))
    tree = told(STARTED, STEP, CALL, CALL_2, waits)
    (run,) = tree.roots
    assert run.status == "requires_action"
    assert str(tree) == "run a  requires action  run_1"
    told(ToolApproved(run_id=R, call_id="c1"), tree=tree)
    assert run.status == "requires_action"
    told(OUTPUT_2, tree=tree)
    assert run.status == "in_progress"
    told(waits, RunCancelling(run_id=R), OUTPUT, OUTPUT_2, tree=tree)
    assert run.status == "cancelling"


def test_what_has_no_beginning_is_told_as_far_as_it_is_known() -> None:
    unknown = (
        HandedOff(run_id=R, agent="b"),
        RunRequiresAction(run_id=R, call_ids=("c1",)),
        ToolApproved(run_id=R, call_id="c1"),
        JOB_DONE,
        OUTPUT,
        DONE,
    )
    assert told(*unknown).roots == []
    tree = told(JOB_BELOW, DELEGATED, JOB_DELEGATED, *of_agent(TEXT, call_id="", thread="thread_7"))
    assert [(node.kind, node.id, node.run_id) for node in tree.roots] == [
        ("job", "job_2", R),
        ("agent", "thread_9", ""),
        ("agent", "thread_8", ""),
        ("agent", "thread_7", ""),
    ]
    (again,) = told(JOB_AGAIN).roots
    assert again.attempt == 2
    told(JOB_BELOW_DONE, *of_agent(DONE), tree=tree)
    assert [node.status for node in tree.roots] == [
        "failed",
        "completed",
        "in_progress",
        "in_progress",
    ]


# Jobs that are started again


def test_a_job_that_is_started_again_is_below_what_it_belongs_to() -> None:
    lost = replace(JOB, job_id="job_6", name="lost")
    page = replace(JOB_BELOW, parent="job_6", kind="m:Page")
    deeper = replace(JOB_BELOW, job_id="job_7", name="line", parent="job_2")
    tree = told(STARTED, JOB, lost, page, deeper)
    told(JOB_AGAIN, replace(page, parent="", attempt=2), tree=tree)
    told(
        replace(JOB_BELOW_DONE, job_id="job_7"), replace(JOB_BELOW_DONE, job_id="job_6"), tree=tree
    )
    assert [line.split("  job_")[0] for line in tree.lines()] == [
        "run a  in progress  run_1",
        "├─ job index  in progress  attempt 2",
        "├─ job lost  failed  0.0 s",
        "└─ job page  in progress  attempt 2",
        "   └─ job line  failed  0.0 s",
    ]


def test_a_background_job_that_is_started_again() -> None:
    tree = told(STARTED, BACK, BACK_BELOW)
    told(replace(BACK, attempt=2), replace(BACK_BELOW, parent="", attempt=2), tree=tree)
    told(DONE, BACK_BELOW_DONE, BACK_DONE, tree=tree, since=10)
    assert [(node.name, node.attempt, node.status, node.children) for node in tree.roots] == [
        ("a", 1, "completed", []),
        ("crawl", 2, "completed", []),
        ("fetch", 2, "cancelled", []),
    ]


def test_how_long_a_job_took() -> None:
    timed = told(STARTED, JOB, JOB_DONE).roots[0].children[0]
    assert timed.seconds == 2.5
    interrupted = replace(JOB_DONE, seconds=0.0)
    lost = told(STARTED, JOB, STEP, STEP, interrupted).roots[0].children[0]
    assert lost.seconds == 3.0


def test_only_the_beginning_of_a_result_is_kept_in_one_line() -> None:
    done = replace(JOB_DONE, output="a\n b\t" + "x" * 1000)
    (job,) = told(STARTED, replace(JOB, name="two\nlines"), done).roots[0].children
    assert job.detail.startswith("a b xxx")
    assert len(job.detail) <= MAX_DETAIL
    assert str(told(STARTED, replace(JOB, name="two\nlines"), done)).count("\n") == 1


# Agents


def test_an_agent_that_works_for_a_call() -> None:
    tree = told(STARTED, STEP, CALL, RUNNING, DELEGATED)
    (agent,) = tree.agents()
    assert (agent.kind, agent.name, agent.id, agent.run_id) == ("agent", "b", "thread_9", R)
    assert agent.seconds is None
    told(*of_agent(STARTED, JOB, RunRequiresAction(run_id=R, call_ids=("c1",))), tree=tree)
    assert agent.status == "requires_action"
    told(*of_agent(OUTPUT), tree=tree)
    assert agent.status == "in_progress"
    told(*of_agent(JOB_DONE, DONE, at=60), tree=tree)
    assert (agent.status, agent.seconds) == ("completed", 56.0)
    told(OUTPUT, DONE, tree=tree, since=70)
    assert str(tree).splitlines() == [
        "run a  completed  71.0 s  run_1",
        "└─ agent b  completed  56.0 s  thread_9",
        "   └─ run a  completed  11.0 s  run_9",
        "      └─ job index  completed  2.5 s  job_1  indexed",
    ]


def test_without_its_own_events_an_agent_ends_with_its_call() -> None:
    tree = told(STARTED, STEP, CALL, CALL_2, DELEGATED)
    second = replace(DELEGATED, call_id="c2", thread_id="thread_10")
    failed = replace(OUTPUT_2, item=FunctionCallOutput("c2", "no", is_error=True))
    told(second, OUTPUT, failed, tree=tree, since=10)
    assert [(agent.status, agent.seconds) for agent in tree.agents()] == [
        ("completed", 7.0),
        ("failed", 2.0),
    ]


def test_what_an_agent_tells_late_is_known_better_than_its_call() -> None:
    """A call that was cut off has its output before its agent has ended."""
    cut = replace(OUTPUT, item=FunctionCallOutput("c1", "cut off", is_error=True))
    tree = told(STARTED, DELEGATED, *of_agent(STARTED), cut)
    (agent,) = tree.agents()
    assert agent.status == "failed"
    told(*of_agent(TextDelta("i", "x"), at=60), tree=tree)
    assert agent.status == "failed"
    told(DONE, *of_agent(RunCancelled(run_id=R, usage=USED), at=62), tree=tree, since=60)
    assert (agent.status, agent.seconds) == ("cancelled", 60.0)
    assert [node.kind for node in tree.roots] == ["run"]
    assert len(list(tree.agents())) == 1


def test_the_agents_of_a_job_are_below_it_and_end_with_it() -> None:
    second = replace(JOB_DELEGATED, thread_id="thread_10")
    tree = told(STARTED, JOB, JOB_DELEGATED, *of_agent(STARTED, thread="thread_8", call_id=""))
    told(*of_agent(DONE, thread="thread_8", call_id="", at=55), second, tree=tree)
    told(replace(JOB_DONE, outcome="cancelled"), tree=tree, since=60)
    (job,) = tree.roots[0].children
    assert [(agent.id, agent.status) for agent in job.children] == [
        ("thread_8", "completed"),
        ("thread_10", "cancelled"),
    ]


def test_the_agent_of_a_background_job_outlives_the_run() -> None:
    tree = told(STARTED, BACK, BACK_DELEGATED, DONE, replace(STARTED, run_id="run_2"))
    told(*of_agent(STARTED, call_id="", thread="thread_7"), tree=tree)
    (agent,) = tree.agents()
    assert [[node.id for node in root.children] for root in tree.roots] == [[], ["thread_7"], []]
    assert (agent.run_id, agent.status, agent.seconds) == (R, "in_progress", None)
    told(BACK_DONE, tree=tree, since=70)
    assert agent.status == "completed"


def test_a_job_that_is_started_again_finds_its_agent() -> None:
    tree = told(STARTED, JOB, JOB_DELEGATED, *of_agent(STARTED, thread="thread_8", call_id=""))
    told(JOB_AGAIN, JOB_DELEGATED, tree=tree, since=60)
    (job,) = tree.roots[0].children
    assert [(agent.id, agent.began) for agent in job.children] == [("thread_8", 3.0)]


def test_the_agent_of_a_hook_is_below_the_run_in_progress() -> None:
    tree = told(STARTED, QUEUED, *of_agent(STARTED, DONE, call_id="", thread="thread_7"))
    assert [[node.id for node in root.children] for root in tree.roots] == [["thread_7"], []]
    (agent,) = tree.agents()
    assert (agent.run_id, agent.began, agent.seconds) == (R, 50.0, 1.0)
    late = told(DONE, *of_agent(STARTED, call_id="", thread="thread_6"), tree=tree)
    assert [node.id for node in late.roots] == [R, "run_2", "thread_6"]


def test_agents_of_agents() -> None:
    inner = of_agent(STARTED, DONE, thread="thread_10", run="run_10", at=54)
    below = replace(DELEGATED, thread_id="thread_10")
    tree = told(STARTED, DELEGATED, *of_agent(STARTED, below, *inner, OUTPUT, DONE))
    assert [line.lstrip(" └─").split("  ")[0] for line in tree.lines()] == [
        "run a",
        "agent b",
        "run a",
        "agent b",
        "run a",
    ]
    (agent,) = tree.agents()
    assert agent.tree is not None
    (deeper,) = agent.tree.agents()
    assert (deeper.id, deeper.status, deeper.run_id) == ("thread_10", "completed", "run_9")


# Calls


def test_calls_are_nodes_of_their_runs_if_they_are_asked_for() -> None:
    tree = ThreadTree(calls=True)
    asks = replace(CALL_2, awaits="approval")
    waits = RunRequiresAction(run_id=R, call_ids=("c2",))
    told(STARTED, STEP, CALL, asks, RUNNING, waits, tree=tree)
    again, timed = replace(RUNNING, attempt=2), replace(OUTPUT, seconds=0.5)
    told(again, timed, tree=tree, since=10)
    assert str(tree).splitlines() == [
        "run a  requires action  run_1",
        "├─ call look  completed  attempt 2  0.5 s  c1  one",
        "└─ call look  requires action  c2",
    ]
    told(ToolApproved(run_id=R, call_id="c2"), tree=tree)
    assert [(node.name, node.status) for node in tree.roots[0].children] == [
        ("look", "completed"),
        ("look", "in_progress"),
    ]
    failed = replace(OUTPUT_2, item=FunctionCallOutput("c2", "no\n line", is_error=True))
    told(replace(RUNNING, call_id="c2"), failed, DONE, tree=tree, since=20)
    assert str(tree).splitlines()[2] == "└─ call look  failed  1.0 s  c2  no line"
    assert len(list(told(STARTED, STEP, CALL, RUNNING, OUTPUT, DONE).lines())) == 1


def test_an_agent_is_below_the_call_for_which_it_works() -> None:
    tree = ThreadTree(calls=True)
    told(STARTED, STEP, CALL, RUNNING, DELEGATED, *of_agent(STARTED, STEP, CALL_2), tree=tree)
    assert [line.split("  in progress")[0] for line in tree.lines()] == [
        "run a",
        "└─ call look",
        "   └─ agent b",
        "      └─ run a",
        "         └─ call look",
    ]
    told(*of_agent(RunCancelled(run_id=R, usage=USED)), tree=tree)
    told(RunCancelled(run_id=R, usage=USED), tree=tree, since=60)
    assert [line.lstrip(" └─").split("  ")[1] for line in tree.lines()] == ["cancelled"] * 5


def test_an_open_call_ends_with_its_run() -> None:
    tree = told(STARTED, STEP, CALL, DELEGATED, tree=ThreadTree(calls=True))
    told(RunCancelled(run_id=R, usage=USED), OUTPUT, RUNNING, tree=tree, since=10)
    assert [line.split("  thread_9")[0] for line in tree.lines()] == [
        "run a  cancelled  10.0 s  run_1",
        "└─ call look  cancelled  8.0 s  c1",
        "   └─ agent b  cancelled  7.0 s",
    ]
    # The ids of calls are those of the model, which may be those of others.
    odd = replace(CALL, item=replace(CALL.item, call_id=R))
    tree = told(STARTED, STEP, odd, tree=ThreadTree(calls=True))
    told(replace(OUTPUT, item=FunctionCallOutput(R, "one")), JOB, tree=tree)
    assert [node.kind for node in tree.roots[0].children] == ["call", "job"]


# However long


def test_of_what_has_ended_only_the_last_is_kept() -> None:
    tree = told(replace(BACK, job_id="job_open"))
    count = MAX_ENDED + 20
    for n in range(count):
        run = f"run_{n}"
        job = replace(JOB, run_id=run, job_id=f"job_{n}")
        agent = replace(JOB_DELEGATED, run_id=run, job_id=f"job_{n}", thread_id=f"thread_{n}")
        told(
            replace(STARTED, run_id=run),
            job,
            agent,
            replace(JOB_DONE, job_id=job.job_id),
            tree=tree,
        )
        told(replace(DONE, run_id=run), tree=tree)
    assert [node.id for node in tree.roots] == [
        "job_open",
        *(f"run_{n}" for n in range(20, count)),
    ]
    assert [agent.id for agent in tree.agents()] == [f"thread_{n}" for n in range(20, count)]
    assert len(list(tree.lines())) == 1 + 3 * MAX_ENDED
    told(*of_agent(TextDelta("i", "x"), thread="thread_0"), tree=tree)
    assert tree.roots[-1].id == "thread_0"


def test_what_is_open_is_kept_however_much_it_is() -> None:
    tree = told(*(replace(BACK, job_id=f"job_{n}") for n in range(3 * MAX_ENDED)))
    assert len(tree.roots) == 3 * MAX_ENDED
    told(*(replace(BACK_DONE, job_id=f"job_{n}") for n in range(3 * MAX_ENDED)), tree=tree)
    assert [node.id for node in tree.roots] == [
        f"job_{n}" for n in range(2 * MAX_ENDED, 3 * MAX_ENDED)
    ]


def test_a_tree_may_be_deep() -> None:
    deep = (replace(JOB, job_id=f"job_{n}", parent=f"job_{n - 1}") for n in range(1, 3000))
    tree = told(STARTED, replace(JOB, job_id="job_0"), *deep)
    *_, last = tree.lines()
    assert last.endswith("└─ job index  in progress  job_2999")


def shown(nodes: list[TreeNode], above: str = "") -> dict[str, tuple[object, ...]]:
    """What is open, and below what."""
    found: dict[str, tuple[object, ...]] = {}
    for node in nodes:
        if node.seconds is None and node.kind == "job":
            found[node.id] = (above, node.name, node.attempt, node.background)
        found |= shown(node.children, node.id if node.kind == "job" else "")
    return found


@given(EVENTS)
def test_the_tree_is_that_of_the_state(events: list[DurableEvent]) -> None:
    state, tree = ThreadState(), ThreadTree(calls=True)
    ended, settled = set[str](), set[str]()
    for event in [ASKED, STARTED, STEP, *events]:
        if isinstance(event, RunQueued | RunStarted) and event.run_id in ended:
            continue  # the id of a run is given once
        if is_repeated(event, state, settled):
            continue
        if isinstance(event, RunRequiresAction) and state.step is not None:
            event = replace(event, call_ids=tuple(one.call_id for one in state.step.awaited))
        event = replace(event, seq=state.seq + 1, at=1.0 + state.seq)  # type: ignore[type-var]
        try:
            state = apply(state, event)  # type: ignore[arg-type]
        except InvalidTransition:
            continue
        tree.apply(event)  # type: ignore[arg-type]
        if isinstance(event, TerminalEvent):
            ended.add(event.run_id)
        if isinstance(event, JobSettled):
            settled.add(event.job_id)
        runs = {node.id: (node.name, node.status) for node in tree.roots if node.kind == "run"}
        assert state.run is not None or not runs
        if state.run is not None:
            assert runs[state.run.id] == (state.run.agent, state.run.status)
        assert {run.id for run in state.queue} == {
            id for id, (_, status) in runs.items() if status == "queued"
        }
        if state.run is not None:
            (run,) = [node for node in tree.roots if node.id == state.run.id]
            open_calls = {
                one.id for one in run.children if one.kind == "call" and one.seconds is None
            }
            step = state.step
            assert open_calls == set(() if step is None else (one.call_id for one in step.pending))
        assert shown(tree.roots) == {
            job.id: (job.parent, job.name, job.attempt, job.background)
            for job in state.jobs.values()
        }
        assert len(list(tree.lines())) == len(str(tree).splitlines())
