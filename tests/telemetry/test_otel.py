"""Spans and metrics as OpenTelemetry gets them, of real runs."""

import builtins
import importlib
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import treadle
from treadle.errors import ConfigurationError, ServerFailed
from treadle.telemetry.otel import Telemetry
from treadle.testing import Call, ScriptedModel, Text, VirtualClockLoop

pytestmark = pytest.mark.anyio


@treadle.tool
async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@treadle.tool(needs_approval=True)
async def send(text: str) -> str:
    """Sends."""
    return f"sent {text}"


class Backend:
    """Where the SDK delivers spans and metrics."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def telemetry(self, **options: bool) -> Telemetry:
        return Telemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self) -> dict[str, list[tuple[Mapping[str, object], int, float]]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [
                (dict(point.attributes), point.count, point.sum)  # type: ignore[union-attr]
                for point in metric.data.data_points
            ]
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }


@pytest.fixture
def backend() -> Iterable[Backend]:
    backend = Backend()
    yield backend
    backend.tracers.shutdown()
    backend.meters.shutdown()


SCRIPT = [[Text("Let me see."), Call("add", '{"a": 1, "b": 2}')], "It is 3."]


async def observed(
    telemetry: Telemetry, script: list[object] = SCRIPT, **options: object
) -> list[treadle.Event]:
    agent = treadle.Agent(ScriptedModel(script), name="adder", tools=[add], **options)
    events: list[treadle.Event] = []
    async with agent.stream("1 + 2?") as run:
        try:
            async for event in run:
                events.append(event)
                telemetry.observe("thread_1", event)
        except ServerFailed:
            pass
    return events


def parents(spans: Mapping[str, ReadableSpan]) -> dict[str, str | None]:
    names = {span.context.span_id: name for name, span in spans.items()}
    return {
        name: names.get(span.parent.span_id) if span.parent else None
        for name, span in spans.items()
    }


async def test_the_spans_of_a_run(backend: Backend) -> None:
    events = await observed(backend.telemetry())
    spans = backend.exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "chat scripted",
        "execute_tool add",
        "step 1",
        "chat scripted",
        "step 2",
        "invoke_agent adder",
    ]
    assert parents(backend.spans) == {
        "chat scripted": "step 2",
        "execute_tool add": "step 1",
        "step 1": "invoke_agent adder",
        "step 2": "invoke_agent adder",
        "invoke_agent adder": None,
    }
    run = backend.spans["invoke_agent adder"]
    (started,) = [event for event in events if isinstance(event, treadle.RunStarted)]
    (ended,) = [event for event in events if isinstance(event, treadle.RunCompleted)]
    assert run.start_time == int(started.at * 1e9)
    assert run.end_time == int(ended.at * 1e9)
    assert run.attributes["gen_ai.conversation.id"] == "thread_1"
    assert run.status.status_code is StatusCode.UNSET
    assert backend.spans["chat scripted"].kind is SpanKind.CLIENT
    assert backend.spans["execute_tool add"].kind is SpanKind.INTERNAL
    assert "1 + 2?" not in str([span.to_json() for span in spans])


async def test_the_metrics_of_a_run(backend: Backend) -> None:
    await observed(backend.telemetry())
    points = backend.points()
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "scripted"}
    durations = points["gen_ai.client.operation.duration"]
    assert [(attributes, count) for attributes, count, _ in durations] == [(chat, 2)]
    assert points["gen_ai.client.operation.time_to_first_chunk"][0][1] == 2
    assert {str(p[0]["gen_ai.token.type"]) for p in points["gen_ai.client.token.usage"]} == {
        "input",
        "output",
    }
    assert points["gen_ai.execute_tool.duration"][0][0]["gen_ai.tool.name"] == "add"
    assert points["gen_ai.invoke_agent.duration"][0][1] == 1


async def test_a_failure(backend: Backend) -> None:
    telemetry = backend.telemetry()
    await observed(telemetry, [ServerFailed("Oops.")], retry=treadle.RetryPolicy(max_retries=0))
    for name in ("chat scripted", "invoke_agent adder"):
        span = backend.spans[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == span.status.description == "server_failed"
    assert "Oops" not in str([span.to_json() for span in backend.spans.values()])


async def test_what_was_said(backend: Backend) -> None:
    await observed(backend.telemetry(content=True))
    assert "1 + 2?" in backend.spans["invoke_agent adder"].attributes["gen_ai.input.messages"]
    assert "It is 3." in backend.spans["chat scripted"].attributes["gen_ai.output.messages"]
    tool = backend.spans["execute_tool add"].attributes
    assert tool["gen_ai.tool.call.arguments"] == '{"a": 1, "b": 2}'
    assert tool["gen_ai.tool.call.result"] == "3"


async def test_a_run_stands_below_what_started_it(backend: Backend) -> None:
    with backend.tracers.get_tracer("app").start_as_current_span("request") as request:
        await observed(backend.telemetry())
    run = backend.spans["invoke_agent adder"]
    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id
    assert len({span.context.trace_id for span in backend.spans.values()}) == 1


async def test_a_run_that_waited_goes_on_in_its_trace(backend: Backend) -> None:
    telemetry = backend.telemetry()
    agent = treadle.Agent(ScriptedModel([Call("send", '{"text": "hi"}'), "Done."]), tools=[send])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        with backend.tracers.get_tracer("app").start_as_current_span("request"):
            run = await thread.send("Send it.")
            async for event in thread.subscribe():
                telemetry.observe(thread.id, event)
                if isinstance(event, treadle.RunRequiresAction):
                    (call_id,) = event.call_ids
                    break
        seq = event.seq
        assert "invoke_agent agent" in backend.spans
        await thread.approve(call_id)
        await run.result()
        async for event in thread.subscribe(after=seq):
            telemetry.observe(thread.id, event)
            if isinstance(event, treadle.RunCompleted):
                break
    runs = [s for s in backend.exporter.get_finished_spans() if s.name == "invoke_agent agent"]
    assert [span.attributes["treadle.run.status"] for span in runs] == [
        "requires_action",
        "completed",
    ]
    assert parents(backend.spans)["execute_tool send"] == "invoke_agent agent"
    assert len({span.context.trace_id for span in backend.spans.values()}) == 1
    assert runs[0].parent == runs[1].parent


async def test_a_run_that_another_process_goes_on_with(backend: Backend, tmp_path: Path) -> None:
    agent = treadle.Agent(ScriptedModel([Call("send", '{"text": "hi"}'), "Done."]), tools=[send])
    path = f"sqlite:///{tmp_path}/treadle.db"
    async with treadle.open(path, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("Send it.")
        async for event in thread.subscribe():
            if isinstance(event, treadle.RunRequiresAction):
                break
    telemetry = backend.telemetry()
    async with treadle.open(path, agents=[agent]) as runtime:
        again = await runtime.connect(thread.id)
        await again.approve(event.call_ids[0])
        async for late in again.subscribe(after=event.seq):
            telemetry.observe(thread.id, late)
            if isinstance(late, treadle.RunCompleted):
                break
    assert backend.spans["invoke_agent"].attributes["treadle.resumed"] is True
    assert parents(backend.spans)["execute_tool send"] == "invoke_agent"
    assert parents(backend.spans)["step 2"] == "invoke_agent"


async def test_the_end_of_the_process(backend: Backend) -> None:
    telemetry = backend.telemetry()
    telemetry.observe("t", treadle.RunStarted(run_id="r", agent="a"))
    telemetry.observe("t", treadle.StepStarted(run_id="r", step=1, model="m"))
    assert backend.spans == {}
    telemetry.close()
    telemetry.close()
    assert list(backend.spans) == ["chat m", "step 1", "invoke_agent a"]
    assert backend.spans["chat m"].attributes["error.type"] == "interrupted"


async def test_who_is_watched_does_not_suffer(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = backend.telemetry()
    secret = "sk-secret-0123456789"

    def broken(*_: object) -> None:
        raise RuntimeError(secret)

    telemetry._fold.observe = broken  # type: ignore[method-assign,assignment]
    telemetry._fold.close = broken  # type: ignore[method-assign,assignment]
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            telemetry.observe("t", treadle.RunStarted(run_id="r", agent="a"))
        telemetry.close()
    assert caplog.messages == ["A run cannot be observed (RuntimeError)."]
    assert secret not in caplog.text


async def test_memory_is_bounded(backend: Backend) -> None:
    telemetry = Telemetry(tracer_provider=backend.tracers, max_runs=2)
    for n in range(50):
        call = treadle.FunctionCall(f"c{n}", "send", "{}")
        for event in (
            treadle.RunStarted(run_id=f"r{n}", agent="a"),
            treadle.StepStarted(run_id=f"r{n}", step=1, model="m"),
            treadle.ToolCallRequested(run_id=f"r{n}", item=call, awaits="approval"),
            treadle.RunRequiresAction(run_id=f"r{n}", call_ids=(call.call_id,)),
        ):
            telemetry.observe(f"t{n}", event)
    assert len(telemetry._surroundings) <= 4
    assert telemetry._spans == {}
    assert telemetry._runs == {}
    with pytest.raises(ConfigurationError, match="max_runs"):
        Telemetry(max_runs=0)


def test_without_an_sdk_nothing_happens() -> None:
    loop = VirtualClockLoop()
    try:
        loop.run_until_complete(observed(Telemetry(content=True)))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert not trace.get_current_span().is_recording()


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return imported(name, *args)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "treadle.telemetry.otel")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigurationError, match=r"pip install 'treadle\[otel\]'"):
        importlib.import_module("treadle.telemetry.otel")


async def test_as_a_hook_of_agents_that_work_together(backend: Backend) -> None:
    telemetry = backend.telemetry()
    hooks = treadle.Hooks(on_event=telemetry.on_event)
    for both in (False, True):
        helper = treadle.Agent(
            ScriptedModel(["42"]), name="helper", hooks=hooks if both else treadle.Hooks()
        )
        script = [Call("helper", '{"message": "6 * 7?"}'), "It is 42."]
        agent = treadle.Agent(
            ScriptedModel(script), name="asker", tools=[helper.as_tool()], hooks=hooks
        )
        with backend.tracers.get_tracer("app").start_as_current_span("request"):
            result = await agent.run("What is 6 * 7?")
        assert result.text == "It is 42."
        found = parents(backend.spans)
        assert found["invoke_agent helper"] == "execute_tool helper"
        assert found["execute_tool helper"] == "step 1"
        assert found["invoke_agent asker"] == "request"
        names = [span.name for span in backend.exporter.get_finished_spans()]
        assert sorted(names) == sorted(
            [
                *["chat scripted"] * 3,
                *["step 1"] * 2,
                "step 2",
                "execute_tool helper",
                "invoke_agent helper",
                "invoke_agent asker",
                "request",
            ]
        )
        backend.exporter.clear()


async def test_as_a_hook_on_a_kept_thread(backend: Backend, tmp_path: Path) -> None:
    telemetry = backend.telemetry()
    helper = treadle.Agent(ScriptedModel(["42"]), name="helper")
    agent = treadle.Agent(
        ScriptedModel([Call("helper", '{"message": "6 * 7?"}'), "It is 42."]),
        tools=[helper.as_tool()],
        hooks=treadle.Hooks(on_event=telemetry.on_event),
    )
    async with treadle.open(f"sqlite:///{tmp_path}/treadle.db", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("6 * 7?")).result()
    assert parents(backend.spans)["invoke_agent helper"] == "execute_tool helper"
    assert backend.spans["invoke_agent agent"].attributes["gen_ai.conversation.id"] == thread.id
    assert telemetry._spans == {}
