"""Events into spans and measurements: trees of real runs, and any order of events."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_BELOW,
    BACK_BELOW_DONE,
    BACK_DONE,
    CALL,
    CALL_2,
    CORRECTION,
    DONE,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    JOB_BELOW_DONE,
    JOB_DELEGATED,
    JOB_DONE,
    OUTPUT,
    OUTPUT_2,
    RESPONSE,
    RUNNING,
    STARTED,
    STEP,
    STEP_BROKEN,
    STEP_DONE,
    TEXT,
    THOUGHT,
    R,
)

from treadle.domain.blocks import BlockRules
from treadle.domain.events import (
    AgentEvent,
    ContextCompacted,
    DurableEvent,
    Event,
    HandedOff,
    HistoryReplaced,
    JobDelegated,
    JobSettled,
    JobStarted,
    MemoryUpdated,
    MessageQueued,
    QuotaHit,
    RateLimitHit,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunContinued,
    RunExpired,
    RunFailed,
    RunFinishing,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepStarted,
    TextDelta,
    ToolApproved,
    ToolCallRequested,
    ToolCallStarted,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
    UsageAdded,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, user_message
from treadle.domain.usage import Usage
from treadle.telemetry.provider_names import provider_name
from treadle.telemetry.run_spans import INTERRUPTED, TOOL_FAILED, Options
from treadle.telemetry.signal import Measured, Signal, SpanBegan, SpanEnded
from treadle.telemetry.thread_spans import ThreadSpans

DELTA = TextDelta("i", "t")
USED = Usage()
FAILED = RunFailed(run_id=R, code="server_failed", message="m", retryable=True, usage=USED)
CANCELLED = RunCancelled(run_id=R, usage=USED)
APPROVED = ToolApproved(run_id=R, call_id="c1")
ASKS = RunRequiresAction(run_id=R, call_ids=("c1",))
LIMITED = RateLimitHit(run_id=R, delay=10, retries_remaining=1, message="m")
RETRYING = Retrying(run_id=R, code="connection_failed", delay=10, retries_remaining=1, message="m")
EXHAUSTED = RetriesExhausted(run_id=R, code="server_failed", attempts=2, message="m")
QUOTA = QuotaHit(run_id=R, message="m")
COMPACTED = ContextCompacted(
    run_id=R,
    cut=1,
    strategy="summarize",
    cause="before_step",
    tokens_before=900,
    tokens_after=400,
    counted_by="usage",
    left_out=5,
    seconds=0.5,
)


class Story:
    """Observes events that are a second apart and keeps the signals."""

    def __init__(self, options: Options | None = None, *, max_runs: int = 100) -> None:
        self.fold = ThreadSpans(options or Options(), max_runs=max_runs)
        self.signals: list[Signal] = []
        self.now = 0.0

    def tell(self, *events: Event, thread: str = "t") -> "Story":
        for event in events:
            self.now += 1
            if isinstance(event, DurableEvent):
                event = replace(event, at=self.now)  # type: ignore[type-var]
            self.signals += self.fold.observe(thread, event, self.now)
        return self

    def close(self) -> "Story":
        self.now += 1
        self.signals += self.fold.close(self.now)
        return self

    @property
    def began(self) -> list[SpanBegan]:
        return [signal for signal in self.signals if isinstance(signal, SpanBegan)]

    def ended(self, span: SpanBegan) -> SpanEnded | None:
        found = [s for s in self.signals if isinstance(s, SpanEnded) and s.id == span.id]
        assert len(found) <= 1
        return found[0] if found else None

    def tree(self) -> list[str]:
        """Each span with its parent, times and error."""
        names = {span.id: span.name for span in self.began}
        lines: list[str] = []
        for span in self.began:
            end = self.ended(span)
            parent = f"{names[span.parent]} > " if span.parent is not None else ""
            until = f"{end.at:g}" if end else ""
            error = f" !{end.error}" if end and end.error else ""
            lines.append(f"{parent}{span.name} {span.at:g}-{until}{error}")
        return lines

    def attributes(self, name: str) -> dict[str, object]:
        (span,) = [span for span in self.began if span.name == name]
        end = self.ended(span)
        return {**span.attributes, **(end.attributes if end else {})}

    def measured(self, metric: str) -> list[tuple[float, dict[str, object]]]:
        found = [s for s in self.signals if isinstance(s, Measured) and s.metric == metric]
        return [(s.value, dict(s.attributes)) for s in found]


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("bedrock:anthropic", "aws.bedrock"),
        ("bedrock", "aws.bedrock"),
        ("gemini", "gcp.gemini"),
        ("vertex", "gcp.vertex_ai"),
        ("openai:me.openai.azure.com", "azure.ai.openai"),
        ("openai", "openai"),
        ("chat:localhost", "chat:localhost"),
    ],
)
def test_providers_have_the_names_of_the_conventions(provider: str, name: str) -> None:
    assert provider_name(provider) == name
    story = Story(Options(providers={"m": provider})).tell(ASKED, STARTED, STEP)
    assert story.attributes("chat m")["gen_ai.provider.name"] == name


def test_the_tree_of_a_run() -> None:
    second = StepStarted(run_id=R, step=2, model="m")
    story = Story(Options(providers={"m": "openai"})).tell(
        ASKED, STARTED, STEP, DELTA, CALL, RUNNING, RESPONSE, OUTPUT, STEP_DONE
    )
    story.tell(second, DELTA, DELTA, TEXT, RESPONSE, replace(STEP_DONE, step=2), DONE)
    assert story.tree() == [
        "invoke_agent a 2-16",
        "invoke_agent a > step 1 3-9",
        "step 1 > chat m 3-7",
        "step 1 > execute_tool look 6-8",
        "invoke_agent a > step 2 10-15",
        "step 2 > chat m 10-14",
    ]
    assert story.fold.open_runs == 0
    assert story.attributes("invoke_agent a") == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "a",
        "gen_ai.conversation.id": "t",
        "gen_ai.usage.input_tokens": 0,
        "gen_ai.usage.output_tokens": 0,
        "treadle.run.id": R,
        "treadle.run.status": "completed",
        "treadle.stop_reason": "end_turn",
    }
    assert story.attributes("execute_tool look") == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.type": "function",
        "gen_ai.conversation.id": "t",
        "treadle.tool.attempts": 1,
    }
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
    }
    assert story.measured("gen_ai.client.operation.duration") == [(4.0, chat)] * 2
    assert story.measured("gen_ai.client.operation.time_to_first_chunk") == [(1.0, chat)] * 2
    assert (
        story.measured("gen_ai.client.token.usage")
        == [
            (3, {**chat, "gen_ai.token.type": "input"}),
            (2, {**chat, "gen_ai.token.type": "output"}),
        ]
        * 2
    )
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"}
    assert story.measured("gen_ai.execute_tool.duration") == [(2.0, tool)]
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}
    assert story.measured("gen_ai.invoke_agent.duration") == [(14.0, agent)]


def test_what_a_response_cost() -> None:
    usage = Usage(100, 50, 80, 30, 1, 10)
    response = replace(RESPONSE, usage=usage, finish_reason="length")
    story = Story().tell(STARTED, STEP, response)
    assert story.attributes("chat m") == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": "t",
        "gen_ai.response.id": "x",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 80,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "treadle.usage.cache_hit_rate": 0.8,
        "gen_ai.usage.reasoning.output_tokens": 30,
    }


def test_a_request_is_one_span_each_time() -> None:
    story = Story().tell(STARTED, STEP, LIMITED)
    story.now = 13  # its delay of ten seconds has passed
    story.tell(RETRYING)
    story.now = 30
    story.tell(DELTA, RESPONSE, STEP_DONE, DONE)
    assert story.tree() == [
        "invoke_agent a 1-34",
        "invoke_agent a > step 1 2-33",
        "step 1 > chat m 2-3 !rate_limited",
        "step 1 > chat m 13-14 !connection_failed",
        "step 1 > chat m 24-32",
    ]
    errors = [a.get("error.type") for _, a in story.measured("gen_ai.client.operation.duration")]
    assert errors == ["rate_limited", "connection_failed", None]
    assert story.measured("gen_ai.client.operation.time_to_first_chunk")[0][0] == 7


def test_a_virtual_clock_makes_requests_early() -> None:
    story = Story().tell(STARTED, STEP, LIMITED, DELTA, RESPONSE)
    assert story.tree()[3:] == ["step 1 > chat m 4-5"]


@pytest.mark.parametrize(
    ("last", "code"), [(EXHAUSTED, "server_failed"), (QUOTA, "quota_exceeded")]
)
def test_the_last_request_fails(last: Event, code: str) -> None:
    failed = replace(FAILED, code=code)
    story = Story().tell(STARTED, STEP, last, STEP_BROKEN, failed)
    assert story.tree() == [
        f"invoke_agent a 1-5 !{code}",
        "invoke_agent a > step 1 2-4",
        f"step 1 > chat m 2-3 !{code}",
    ]


def test_a_response_that_breaks_off_has_the_code_of_the_run() -> None:
    story = Story().tell(STARTED, STEP, DELTA, STEP_BROKEN, CORRECTION, FAILED)
    assert story.tree() == [
        "invoke_agent a 1-6 !server_failed",
        "invoke_agent a > step 1 2-4",
        "step 1 > chat m 2-4 !server_failed",
    ]
    assert story.attributes("invoke_agent a")["treadle.run.status"] == "failed"


def test_a_cancelled_run() -> None:
    cut = replace(OUTPUT, item=FunctionCallOutput("c1", "cut", is_error=True))
    story = Story().tell(STARTED, STEP, CALL, RUNNING, cut, STEP_BROKEN, CANCELLED)
    assert story.tree() == [
        "invoke_agent a 1-7",
        "invoke_agent a > step 1 2-6",
        "step 1 > chat m 2-6 !cancelled",
        f"step 1 > execute_tool look 4-5 !{TOOL_FAILED}",
    ]


def test_cancelled_before_the_request_was_repeated() -> None:
    story = Story().tell(STARTED, STEP, LIMITED, STEP_BROKEN, CANCELLED)
    assert story.tree()[2:] == ["step 1 > chat m 2-3 !rate_limited"]


def test_a_refused_call_took_as_long_as_its_refusal() -> None:
    refused = replace(OUTPUT, item=FunctionCallOutput("c1", "no", is_error=True))
    story = Story().tell(STARTED, STEP, CALL, refused)
    assert story.tree()[3:] == [f"step 1 > execute_tool look 3-4 !{TOOL_FAILED}"]
    assert story.attributes("execute_tool look")["treadle.tool.attempts"] == 0


def test_a_repeated_tool_is_one_span() -> None:
    again = replace(RUNNING, attempt=2)
    story = Story().tell(STARTED, STEP, CALL, RUNNING, again, OUTPUT)
    assert story.tree()[3:] == ["step 1 > execute_tool look 4-6"]
    assert story.attributes("execute_tool look")["treadle.tool.attempts"] == 2


def test_a_run_that_waits_for_someone_is_not_kept() -> None:
    story = Story().tell(STARTED, STEP, CALL, CALL_2, RESPONSE, ASKS)
    assert story.fold.open_runs == 1  # the other tool still runs
    story.tell(replace(RUNNING, call_id="c2"), OUTPUT_2)
    assert story.fold.open_runs == 0
    story.tell(APPROVED, RUNNING, OUTPUT, STEP_DONE, DONE)
    assert story.tree() == [
        "invoke_agent a 1-8",
        "invoke_agent a > step 1 2-8",
        "step 1 > chat m 2-5",
        "step 1 > execute_tool look 7-8",
        "invoke_agent a 9-13",
        "invoke_agent a > execute_tool look 10-11",
    ]
    first, again = [span for span in story.began if span.run_id]
    assert not first.resumed
    assert again.resumed
    end = story.ended(first)
    assert end is not None
    assert end.suspended
    assert end.attributes["treadle.run.status"] == "requires_action"


def test_a_run_that_another_process_began() -> None:
    story = Story().tell(STEP_BROKEN, replace(STEP, step=2), RESPONSE, STEP_DONE, DONE)
    assert story.tree() == [
        "invoke_agent 1-5",
        "invoke_agent > step 2 2-4",
        "step 2 > chat m 2-3",
    ]
    assert story.attributes("invoke_agent")["treadle.resumed"] is True


def test_a_run_that_never_began_is_nothing() -> None:
    queued = RunQueued(run_id=R, item=user_message("hi"), agent="a")
    story = Story().tell(queued, ASKED, CANCELLED, DELTA, ToolProgress("c1", "look", "x"))
    assert story.signals == []


def test_threads_are_told_apart() -> None:
    story = Story()
    for event in (STARTED, STEP, DELTA, RESPONSE, STEP_DONE, DONE):
        for thread in ("a", "b"):
            story.tell(event, thread=thread)
    assert sorted(str(span.attributes.get("gen_ai.conversation.id")) for span in story.began) == [
        "None",
        "None",
        *["a"] * 2,
        *["b"] * 2,
    ]
    assert all(story.ended(span) for span in story.began)


def test_memory_is_bounded() -> None:
    story = Story(Options(content=True), max_runs=3)
    for n in range(10):
        story.tell(replace(ASKED, run_id=f"r{n}"), thread=f"{n}")
        story.tell(replace(STARTED, run_id=f"r{n}"), thread=f"{n}")
        assert story.fold.open_runs <= 3
    ends = [story.ended(span) for span in story.began]
    assert [end.error for end in ends if end] == [INTERRUPTED] * 7
    assert all(story.ended(span) for span in story.close().began)


def test_what_was_said_is_not_told_unless_asked_for() -> None:
    events = (ASKED, STARTED, STEP, THOUGHT, TEXT, CALL, RUNNING, RESPONSE, OUTPUT, STEP_DONE, DONE)
    said = ("messages", "arguments", "result")
    for signal in Story().tell(*events).signals:
        assert not any(key.endswith(said) for key in signal.attributes)
    story = Story(Options(content=True)).tell(*events)
    agent, chat = story.attributes("invoke_agent a"), story.attributes("chat m")
    assert agent["gen_ai.input.messages"] == (
        '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
    )
    assert (
        chat["gen_ai.output.messages"]
        == agent["gen_ai.output.messages"]
        == (
            '[{"role":"assistant","parts":[{"type":"text","content":"t"},{"type":"tool_call",'
            '"id":"c1","name":"look","arguments":{}}],"finish_reason":"stop"}]'
        )
    )
    tool = story.attributes("execute_tool look")
    assert tool["gen_ai.tool.call.arguments"] == "{}"
    assert tool["gen_ai.tool.call.result"] == "one"


RUNS = ("r1", "r2")
CALLS = ("c1", "c2", "c3")


def _of_run(event: DurableEvent) -> st.SearchStrategy[DurableEvent]:
    return st.sampled_from(RUNS).map(lambda run: replace(event, run_id=run))  # type: ignore[type-var]


def _of_call(make: object) -> st.SearchStrategy[DurableEvent]:
    return st.tuples(st.sampled_from(RUNS), st.sampled_from(CALLS)).map(lambda x: make(*x))  # type: ignore[operator]


def _strategies() -> Iterable[st.SearchStrategy[Event]]:
    fixed: Sequence[DurableEvent] = (
        ASKED,
        STARTED,
        STEP,
        THOUGHT,
        TEXT,
        CORRECTION,
        LIMITED,
        RETRYING,
        EXHAUSTED,
        QUOTA,
        RESPONSE,
        STEP_DONE,
        STEP_BROKEN,
        FAILED,
        CANCELLED,
        DONE,
        RunIncomplete(run_id=R, stop_reason="max_steps", usage=USED),
        RunExpired(run_id=R, usage=USED),
        RunFinishing(run_id=R),
        RunCancelling(run_id=R),
        HandedOff(run_id=R, agent="b"),
        RunContinued(run_id=R),
        COMPACTED,
        UsageAdded(run_id=R, usage=USED),
        HistoryReplaced(run_id=R, items=()),
        MessageQueued(run_id=R, item=user_message("x")),
        RunQueued(run_id=R, item=user_message("x"), agent="a"),
    )
    yield from map(_of_run, fixed)
    yield _of_call(lambda r, c: ToolCallRequested(run_id=r, item=FunctionCall(c, "n", "{")))
    yield _of_call(lambda r, c: ToolStarted(run_id=r, call_id=c, name="n", attempt=1))
    yield _of_call(lambda r, c: ToolApproved(run_id=r, call_id=c))
    yield _of_call(lambda r, c: ToolApproved(run_id=r, call_id=c, arguments="{}"))
    yield _of_call(lambda r, c: RunRequiresAction(run_id=r, call_ids=(c,)))
    yield _of_call(
        lambda r, c: ToolOutputRecorded(run_id=r, item=FunctionCallOutput(c, "o"), name="n")
    )
    yield _of_call(lambda r, c: JobStarted(run_id=r, job_id=c, name="n"))
    yield _of_call(lambda r, c: JobStarted(run_id=r, job_id=c, name="n", parent="c1"))
    yield _of_call(lambda r, c: JobStarted(run_id=r, job_id=c, name="n", background=True))
    yield _of_call(lambda r, c: JobDelegated(run_id=r, job_id=c, agent="a", thread_id="b"))
    yield _of_call(lambda r, c: JobSettled(run_id=r, job_id=c, outcome="cancelled"))
    yield st.just(DELTA)
    yield st.just(ToolCallStarted("i", "c1", "n"))
    yield st.just(ToolProgress("c1", "n", "p"))
    yield _of_call(lambda r, c: ToolDelegated(run_id=r, call_id=c, agent="a", thread_id="b"))
    for event in (STARTED, STEP, DELTA, DONE):
        yield st.sampled_from(["a", "b", "c"]).map(
            lambda thread, event=event: AgentEvent("c1", "a", thread, event)
        )


events = st.one_of(*_strategies())


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), events, st.floats(0, 20), st.integers(0, 3)),
        max_size=40,
    ),
    st.booleans(),
    st.integers(1, 3),
)
def test_each_span_that_began_ends_once(
    told: list[tuple[str, Event, float, int]], content: bool, max_runs: int
) -> None:
    fold = ThreadSpans(Options(content), max_runs=max_runs)
    open_spans: dict[int, SpanBegan] = {}
    seen: set[int] = set()

    def take(signals: list[Signal]) -> None:
        for signal in signals:
            match signal:
                case SpanBegan():
                    assert signal.id not in seen
                    assert signal.parent is None or signal.parent in open_spans
                    after_run = signal.name == "compact_context"
                    assert signal.parent is not None or signal.run_id or after_run
                    open_spans[signal.id] = signal
                    seen.add(signal.id)
                case SpanEnded():
                    span = open_spans.pop(signal.id)
                    assert signal.at >= span.at
                    # An agent that works for a run, and a job below another, may, in odd orders,
                    # outlive it.
                    below = [s for s in open_spans.values() if s.parent == signal.id]
                    assert all(s.run_id or span.name == s.name == "job n" for s in below)
                case Measured():
                    assert signal.value >= 0

    for thread, event, at, seq in told:
        if isinstance(event, DurableEvent):
            event = replace(event, at=at, seq=seq)  # type: ignore[type-var]
        take(fold.observe(thread, event, at))
        assert fold.open_runs <= max_runs
        assert len([span for span in open_spans.values() if span.run_id]) == fold.open_runs
    take(fold.close(30.0))
    assert open_spans == {}


def test_a_response_of_an_unknown_step_is_no_request() -> None:
    story = Story().tell(
        STARTED, ResponseCompleted(run_id=R, response_id="", finish_reason="stop", usage=USED)
    )
    story.tell(RunCompleted(run_id=R, stop_reason="end_turn", usage=USED))
    assert story.tree() == ["invoke_agent a 1-3"]
    started = RunStarted(run_id="r2", agent="b", agent_hash="0123")
    assert Story().tell(started).began[0].attributes["gen_ai.agent.version"] == "0123"


def test_a_model_without_a_name() -> None:
    story = Story().tell(STARTED, replace(STEP, model=""), RESPONSE)
    assert story.tree()[2] == "step 1 > chat 2-3"
    assert "gen_ai.request.model" not in story.attributes("chat")


def of_worker(event: Event, at: int) -> AgentEvent:
    if isinstance(event, DurableEvent):
        event = replace(event, run_id="run_2", seq=at, at=float(at))  # type: ignore[type-var]
    return AgentEvent("c1", "b", "t2", event)


def test_an_agent_that_works_for_a_tool() -> None:
    delegated = ToolDelegated(run_id=R, call_id="c1", agent="b", thread_id="t2")
    started = replace(STARTED, agent="b")
    story = Story().tell(STARTED, STEP, CALL, RUNNING, delegated)
    for event in (started, STEP, DELTA, RESPONSE, STEP_DONE, DONE):
        inner = of_worker(event, int(story.now) + 1)
        story.tell(inner)
        if isinstance(inner.event, DurableEvent):
            # The agent's own hooks are told of it too, with the event of that thread itself.
            story.signals += story.fold.observe("t2", inner.event, story.now)
    story.tell(OUTPUT, RESPONSE, STEP_DONE, DONE)
    assert story.tree() == [
        "invoke_agent a 1-15",
        "invoke_agent a > step 1 2-14",
        "step 1 > chat m 2-13",
        "step 1 > execute_tool look 4-12",
        "execute_tool look > invoke_agent b 6-11",
        "invoke_agent b > step 1 7-10",
        "step 1 > chat m 7-9",
    ]


def test_an_agent_that_works_for_a_hook() -> None:
    story = Story().tell(STARTED, AgentEvent("", "b", "t2", replace(STARTED, run_id="run_2")))
    assert story.tree()[1].startswith("invoke_agent a > invoke_agent a")


def test_a_run_that_is_handed_over() -> None:
    story = Story().tell(STARTED, STEP, RESPONSE, STEP_DONE, HandedOff(run_id=R, agent="b"))
    story.tell(replace(STEP, step=2), RESPONSE, replace(STEP_DONE, step=2), DONE)
    assert story.attributes("step 1")["gen_ai.agent.name"] == "a"
    assert story.attributes("step 2")["gen_ai.agent.name"] == "b"
    assert story.measured("gen_ai.invoke_agent.duration")[0][1]["gen_ai.agent.name"] == "b"


def test_the_arguments_with_which_a_call_was_approved() -> None:
    approved = ToolApproved(run_id=R, call_id="c1", arguments='{"at": 2}')
    story = Story(Options(content=True)).tell(STARTED, STEP, CALL, approved, RUNNING, OUTPUT)
    assert story.attributes("execute_tool look")["gen_ai.tool.call.arguments"] == '{"at": 2}'


def test_arguments_that_a_hook_changed_and_what_a_response_cost() -> None:
    started = replace(RUNNING, arguments='{"at": 2}')
    story = Story(Options(content=True)).tell(STARTED, STEP, CALL, started)
    assert story.attributes("execute_tool look")["gen_ai.tool.call.arguments"] == '{"at": 2}'
    story.tell(replace(RESPONSE, cost=0.5))
    assert story.attributes("chat m")["treadle.cost"] == 0.5


def test_a_tool_that_never_ended_ends_with_its_step() -> None:
    story = Story().tell(STARTED, STEP, CALL, RUNNING, STEP_BROKEN, FAILED)
    (tool,) = [span for span in story.began if span.name.startswith("execute_tool")]
    end = story.ended(tool)
    assert end is not None
    assert end.at == 5
    assert end.error


# Jobs


def test_the_jobs_of_a_run_are_below_it_and_below_each_other() -> None:
    story = Story().tell(STARTED, STEP, CALL, RUNNING, JOB, JOB_BELOW, OUTPUT, RESPONSE, STEP_DONE)
    story.tell(JOB_BELOW_DONE, JOB_DONE, DONE)
    assert story.tree()[4:] == [
        "invoke_agent a > job index 5-11",
        "job index > job page 6-10 !c",
    ]
    assert story.tree()[0] == "invoke_agent a 1-12"
    assert story.attributes("job index") == {
        "gen_ai.conversation.id": "t",
        "treadle.job.id": "job_1",
        "treadle.job.outcome": "completed",
    }
    assert story.attributes("job page")["treadle.job.outcome"] == "failed"


@pytest.mark.parametrize(
    ("settled", "error"),
    [
        (replace(JOB_DONE, outcome="failed", code="job_failed"), " !job_failed"),
        (replace(JOB_DONE, outcome="failed"), " !failed"),
        (replace(JOB_DONE, outcome="cancelled"), " !cancelled"),
        (JOB_DONE, ""),
    ],
)
def test_how_a_job_ended(settled: JobSettled, error: str) -> None:
    story = Story().tell(STARTED, JOB, settled, CANCELLED)
    assert story.tree() == ["invoke_agent a 1-4", f"invoke_agent a > job index 2-3{error}"]


def test_background_jobs_are_not_traced() -> None:
    story = Story().tell(STARTED, BACK, BACK_BELOW, BACK_BELOW_DONE, DONE)
    story.tell(replace(BACK, job_id="job_9", parent="job_3"), BACK_DONE)
    assert story.tree() == ["invoke_agent a 1-5"]
    story.tell(replace(BACK, attempt=2), BACK_DONE)
    assert story.fold.open_runs == 0


def test_a_run_that_waits_for_someone_is_held_while_its_jobs_go_on() -> None:
    story = Story().tell(STARTED, STEP, CALL, JOB, JOB_BELOW, RESPONSE, ASKS, JOB_BELOW_DONE)
    assert story.fold.open_runs == 1
    story.tell(JOB_DONE)
    assert story.fold.open_runs == 0
    assert story.tree() == [
        "invoke_agent a 1-9",
        "invoke_agent a > step 1 2-9",
        "step 1 > chat m 2-6",
        "invoke_agent a > job index 4-9",
        "job index > job page 5-8 !c",
    ]
    assert story.attributes("invoke_agent a")["treadle.run.status"] == "requires_action"


def test_an_answer_that_comes_before_the_jobs_end_goes_on_in_the_same_span() -> None:
    story = Story().tell(STARTED, STEP, CALL, JOB, RESPONSE, ASKS, OUTPUT, STEP_DONE, JOB_DONE)
    story.tell(DONE)
    assert [line for line in story.tree() if line.startswith("invoke_agent a ")] == [
        "invoke_agent a 1-10",
        "invoke_agent a > step 1 2-8",
        "invoke_agent a > job index 4-9",
    ]


def test_a_job_that_is_started_again_after_a_crash() -> None:
    story = Story().tell(JOB_AGAIN, replace(STEP, step=2), JOB_DONE)
    assert story.tree() == [
        "invoke_agent 1-",
        "invoke_agent > job index 1-3",
        "invoke_agent > step 2 2-",
        "step 2 > chat m 2-",
    ]
    assert story.attributes("invoke_agent")["treadle.resumed"] is True
    assert story.attributes("job index")["treadle.job.attempt"] == 2
    # in the same process, it is the same span
    story = Story().tell(STARTED, JOB, JOB_AGAIN, JOB_DONE, DONE)
    assert story.tree() == ["invoke_agent a 1-5", "invoke_agent a > job index 2-4"]


def test_jobs_of_a_run_that_nobody_tells_of_any_more() -> None:
    story = Story().tell(STARTED, JOB, JOB_BELOW).close()
    assert story.tree() == [
        f"invoke_agent a 1-4 !{INTERRUPTED}",
        f"invoke_agent a > job index 2-4 !{INTERRUPTED}",
        f"job index > job page 3-4 !{INTERRUPTED}",
    ]
    ended = [signal.id for signal in story.signals if isinstance(signal, SpanEnded)]
    assert ended == [3, 2, 1]  # what is below ends first


def test_the_agent_of_a_job_is_below_the_job() -> None:
    story = Story().tell(STARTED, JOB, JOB_DELEGATED)
    for event in (replace(STARTED, agent="b"), STEP, DELTA, RESPONSE, STEP_DONE, DONE):
        if isinstance(event, DurableEvent):
            at = int(story.now) + 1
            event = replace(event, run_id="run_2", seq=at, at=float(at))  # type: ignore[type-var]
        story.tell(AgentEvent("", "b", "thread_8", event))
    story.tell(JOB_DONE, DONE)
    assert story.tree() == [
        "invoke_agent a 1-11",
        "invoke_agent a > job index 2-10",
        "job index > invoke_agent b 4-9",
        "invoke_agent b > step 1 5-8",
        "step 1 > chat m 5-7",
    ]


def test_the_agent_of_a_background_job_is_below_no_run() -> None:
    """The run in progress, if there is one, may be another than that which started the job."""
    worker = replace(STARTED, agent="b", run_id="run_9")
    delegated = JobDelegated(run_id=R, job_id="job_3", agent="b", thread_id="thread_8")
    story = Story().tell(STARTED, BACK, delegated, AgentEvent("", "b", "thread_8", worker), DONE)
    other = replace(delegated, thread_id="thread_9")
    story.tell(replace(STARTED, run_id="run_2"), other)
    story.tell(AgentEvent("", "b", "thread_9", replace(worker, run_id="run_10")))
    assert [span.parent for span in story.began] == [None] * 4


def test_a_compaction_is_below_its_run_while_that_is_open() -> None:
    story = Story().tell(ASKED, STARTED, COMPACTED, STEP, RESPONSE, TEXT, STEP_DONE, DONE)
    assert story.tree()[1] == "invoke_agent a > compact_context 2.5-3"
    assert story.attributes("compact_context") == {
        "gen_ai.conversation.id": "t",
        "treadle.run.id": R,
        "treadle.domain.context.strategy": "summarize",
        "treadle.domain.context.cause": "before_step",
        "treadle.domain.context.tokens_before": 900,
        "treadle.domain.context.tokens_after": 400,
        "treadle.domain.context.counted_by": "usage",
        "treadle.domain.context.left_out": 5,
    }


def test_a_summary_after_a_run_counts_its_tokens() -> None:
    written = replace(
        COMPACTED, usage=Usage(80, 9, requests=1), model="small", cost=0.5, fallback="large: down"
    )
    other = replace(STARTED, run_id="run_2")
    story = Story().tell(STARTED, STEP, RESPONSE, TEXT, STEP_DONE, DONE, other, written)
    assert story.tree()[-1] == "compact_context 7.5-8"
    told = story.attributes("compact_context")
    assert told["gen_ai.request.model"] == "small"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (80, 9)
    assert (told["treadle.cost"], told["treadle.domain.context.fallback"]) == (0.5, "large: down")
    tokens = story.measured("gen_ai.client.token.usage")[-2:]
    assert [count for count, _ in tokens] == [80, 9]
    assert tokens[0][1]["gen_ai.request.model"] == "small"
    nameless = Story().tell(replace(written, model=""))
    assert "gen_ai.request.model" not in nameless.attributes("compact_context")


def test_what_changes_in_the_memory_is_no_span() -> None:
    made = MemoryUpdated(label="human", operation="create", author="agent", becomes=BlockRules())
    story = Story().tell(ASKED, STARTED, made, STEP, RESPONSE, TEXT, STEP_DONE, DONE)
    assert len(story.tree()) == 3
    assert Story().tell(made).tree() == []


def test_a_request_that_failed_when_none_was_made() -> None:
    assert Story().tell(STARTED, RETRYING, DONE).tree() == ["invoke_agent a 1-3"]
