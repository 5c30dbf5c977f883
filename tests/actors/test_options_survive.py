"""A run with options that is killed at any append and resumed elsewhere sends the same requests."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.test_machine import CrashingJournal

from treadle import (
    Agent,
    AllowedTools,
    ExternalTool,
    Limits,
    ModelSettings,
    NamedTool,
    RunOptions,
    Runtime,
    ThreadRun,
    tool,
)
from treadle.domain.ids import id_of
from treadle.domain.items import FunctionCall, Item, Message, OutputText
from treadle.domain.usage import Usage
from treadle.errors import JournalError, RunInterrupted, RunNotFound
from treadle.journal.base import Batch
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import VirtualClockLoop

Seen = list[tuple[str, object]]


class PredictableModel:
    """Calls every tool it is offered once, in order, hands over last, and then answers."""

    provider = "predictable"

    def __init__(self, name: str, seen: Seen) -> None:
        self.name = name
        self._seen = seen

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        self._seen.append((self.name, described(request)))
        await asyncio.sleep(0.01)
        called = [item.name for item in request.items if isinstance(item, FunctionCall)]
        left = [schema.name for schema in request.tools if schema.name not in called]
        left.sort(key=lambda name: name.startswith("transfer_to_"))
        number = len(request.items)
        if left and request.settings.tool_choice != "none":
            call = FunctionCall(f"call_{number}", left[0], "{}", f"fc_{number}")
            yield ItemFinished(0, call)
        else:
            text = '{"value": 1}' if request.output is not None else "done"
            yield ItemFinished(0, Message("assistant", (OutputText(text),), f"msg_{number}"))
        yield ResponseFinished(f"resp_{number}", "stop", Usage(1, 1))


def described(request: ModelRequest) -> object:
    """What a request consists of, without random ids."""
    return (
        [what(item) for item in request.items],
        request.instructions,
        request.tools,
        request.output,
        request.settings,
    )


def what(item: Item) -> object:
    return type(item).__name__, getattr(item, "name", ""), getattr(item, "text", "")


class DyingJournal(CrashingJournal):
    """Crashes after a number of appends."""

    def __init__(self, before: CrashingJournal | None, appends: int | None) -> None:
        super().__init__(before)
        self.appends = 0
        self._left = appends

    def append(self, batch: Batch) -> asyncio.Future[None]:
        self.appends += 1
        if self._left is not None and self.appends > self._left:
            self.crashed = True
        return super().append(batch)


@tool(idempotent=True)
async def own() -> str:
    """Belongs to the agent."""
    return "own"


@tool(idempotent=True)
async def added() -> str:
    """Is added by options."""
    return "added"


def runtime_on(journal: CrashingJournal, seen: Seen) -> Runtime:
    """A process of its own: nothing in it is known from the one before."""
    agent = Agent(PredictableModel("first", seen), name="first", tools=[own], instructions="Mine.")
    other = Agent(PredictableModel("second", seen), name="second", instructions="Yours.")
    agent.add_handoff(other)
    cheap = PredictableModel("cheap", seen)
    return Runtime(journal, agents=[agent], models={"cheap": cheap}, tools=[added])


async def answer(runtime: Runtime, journal: CrashingJournal, run: ThreadRun) -> None:
    """Answers external calls until the run has ended, or the process has."""
    thread = await runtime.connect(run.thread_id)
    for _ in range(200):
        if journal.crashed:
            return
        for pending in await thread.pending_calls():
            await thread.submit_tool_output(pending.call.call_id, "from outside")
        if any(one.id == run.id and one.last_seq for one in await thread.runs()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("The run does not end.")


async def carried_out(
    given: Mapping[str, Any], is_queued: bool, appends: int | None
) -> tuple[Seen, int, object]:
    """Runs with options, killed after some appends; returns what models saw, and the end."""
    seen: Seen = []
    first = DyingJournal(None, appends)
    runtime = runtime_on(first, seen)
    await runtime.start()
    thread = await runtime.create_thread("first")
    sent: ThreadRun | None = None
    try:
        if is_queued:
            await thread.send("Before", tool_choice="none")
        sent = await thread.send("Hello", key="key", **given)
        await answer(runtime, first, sent)
    except (JournalError, RunInterrupted):
        pass
    await runtime.shutdown()
    second = CrashingJournal(first)
    runtime = runtime_on(second, seen)
    async with runtime:
        try:
            run = await (await runtime.connect(thread.id)).run(id_of("run", thread.id, "key"))
        except RunNotFound:
            assert sent is None  # it was never acknowledged
            return seen, first.appends, None
        await answer(runtime, second, run)
        result = await run.result(raise_on_incomplete=False)
        state = await (await runtime.connect(thread.id)).state()
        assert state.run is not None
        assert state.run.options == options_of(given)
        return seen, first.appends, (result.output, result.status, result.agent)


def options_of(given: Mapping[str, Any]) -> RunOptions | None:
    from treadle.loop.catalog import Catalog
    from treadle.loop.options import make_options

    kept = dict(given)
    output = kept.pop("output", None)
    return make_options(Catalog(), kept, output, function="send", is_kept=True)  # type: ignore[arg-type]


def without_repeats(seen: Seen) -> Seen:
    """A request whose response was lost is sent again."""
    return [one for n, one in enumerate(seen) if n == 0 or one != seen[n - 1]]


OUTSIDE = ExternalTool("outside", "Is answered by the caller.")
SCHEMA = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}

options = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("cheap"),
        "settings": st.builds(ModelSettings, temperature=st.sampled_from([0.0, 0.5])),
        "instructions": st.sampled_from(["", "Other."]),
        "extra_instructions": st.just("Be brief."),
        "tools": st.lists(st.sampled_from(["added", OUTSIDE]), max_size=2, unique_by=str),
        "tool_choice": st.sampled_from(
            ["auto", "none", "required", NamedTool("own"), AllowedTools(("own",), True)]
        ),
        "output": st.just(SCHEMA),
        "limits": st.builds(Limits, max_steps=st.integers(2, 9)),
        "metadata": st.just({"ticket": 7}),
    },
)


@settings(max_examples=20)
@given(options, st.booleans())
def test_a_run_killed_at_any_append_sends_the_same_requests(
    given: dict[str, Any], is_queued: bool
) -> None:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        whole, appends, end = runner.run(carried_out(given, is_queued, None))
        assert end is not None
        for n in range(appends):
            seen, _, ended = runner.run(carried_out(given, is_queued, n))
            if ended is not None:
                assert without_repeats(seen) == whole
                assert ended == end
