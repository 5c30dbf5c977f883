"""The runtime without asyncio: the methods of the other one, in threads, loops and forks."""

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path

import pytest

import treadle
from treadle import Agent, RunContext, sync, tool
from treadle.errors import (
    ConfigurationError,
    InvalidInput,
    JournalClosed,
    RunInterrupted,
    RunTimeout,
    ServerFailed,
    ThreadNotFound,
    TreadleError,
)
from treadle.sync.handle import iterate
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.real_clock

PAIRS = [
    (treadle.Runtime, sync.Runtime),
    (treadle.RuntimeView, sync.RuntimeView),
    (treadle.Thread, sync.Thread),
    (treadle.ThreadRun, sync.ThreadRun),
    (treadle.Memory, sync.Memory),
    (treadle.Archive, sync.Archive),
    (treadle.Files, sync.Files),
    (treadle.Subscription, sync.Subscription),
    (treadle.RunSubscription, sync.RunSubscription),
    (treadle.DeskSubscription, sync.DeskSubscription),
    (treadle.StateSubscription, sync.StateSubscription),
]
INSIDE = {"reach", "agent_of", "catalog", "journal"}
"""What the parts of a runtime ask it for."""
FOR_LOOPS = {"next", "take", "wait", "call_with_next", "wake", "leave", "aclose"}
"""What a subscription has for code on an event loop."""
FOR_THREADS = {"close", "events"}
"""What it has for threads instead: `events` of a desk, with heartbeats."""
SLOW = 20
"""Seconds after which a test that hangs fails."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def attributes(kind: type) -> set[str]:
    """What instances have besides what their class has."""
    return set(getattr(kind, "__annotations__", {})) | {"id", "thread_id", "owner", "by"}


def parameters(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    given = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in given]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda kind: f"{kind.__name__}")
def test_both_have_the_same_methods_with_the_same_parameters(one: type, other: type) -> None:
    is_stream = hasattr(other, "close")
    left_out = FOR_LOOPS if is_stream else INSIDE
    added = FOR_THREADS if is_stream else {*attributes(other), "is_driven", "is_new"}
    assert public(one) - left_out - attributes(one) == public(other) - added - attributes(other)
    for name in public(one) & public(other):
        method, waiting = getattr(one, name), getattr(other, name)
        if not callable(method) or name == "envelopes":  # which has a heartbeat in addition
            continue
        assert not inspect.iscoroutinefunction(waiting), name
        assert parameters(waiting) == parameters(method), name
        assert waiting.__doc__, name


@pytest.fixture
def runtime() -> Iterator[sync.Runtime]:
    with sync.open() as runtime:
        yield runtime


def agent_of(*script: object, **options: object) -> Agent:
    return Agent(ScriptedModel(list(script)), name="a", **options)  # type: ignore[arg-type]


def test_a_conversation(runtime: sync.Runtime, tmp_path: Path) -> None:
    thread = runtime.create_thread(agent_of("Hello.", "Again."), owner="ada", metadata={"n": 1})
    run = thread.send("one")
    assert "".join(run.text_stream()) == "Hello."
    assert run.text() == "Hello."
    assert run.result(timeout=SLOW).output == "Hello."
    assert [event.type for event in run][-1] == "run.completed"
    assert list(run.partial_output())[-1] == "Hello."
    assert run.info().status == "completed"
    assert (run.thread_id, run.is_driven) == (thread.id, True)
    assert runtime.run(run.id).id == thread.run(run.id).id == run.id
    assert thread.active_run() is None
    assert runtime.connect(thread.id).id == thread.id
    assert runtime.threads(owner="ada")[0].metadata == {"n": 1}
    assert thread.fork().last_seq() > 0
    with thread.subscribe(after="state") as opened:
        view = next(opened)
        assert view == thread.view()
        assert opened.position == thread.view().position
    thread.memory.create("notes", "x")
    assert [block.label for block in thread.memory.blocks()] == ["notes"]
    passage = runtime.archive(owner="ada").insert("A fact.")
    assert runtime.archive(owner="ada").get(passage).text == "A fact."
    assert runtime.memory("shared", owner="ada").thread_id
    stored = runtime.files.put(b"text", name="a.txt", owner="ada")
    assert runtime.files.get(stored.id) == b"text"
    assert thread.files.__class__ is sync.Files
    view = runtime.for_owner("bob", by="eve")
    assert (view.owner, view.by) == ("bob", "eve")
    with pytest.raises(ThreadNotFound):
        view.connect(thread.id)
    assert "Thread" in repr(thread)
    with sync.open(f"sqlite:///{tmp_path / 'a.db'}", agents=[agent_of("Hi.")]) as other:
        assert list(other.agents) == ["a"]
        assert other.create_thread("a").send("x").text() == "Hi."
        assert other.agent("a").name == "a"


def test_errors_are_those_of_the_runtime(runtime: sync.Runtime) -> None:
    thread = runtime.create_thread(agent_of(ServerFailed("It broke."), retry=_never()))
    run = thread.send("one")
    for ask in (run.result, lambda: list(run.text_stream())):
        with pytest.raises(ServerFailed, match="It broke"):
            ask()
    with pytest.raises(InvalidInput):
        thread.send("")
    with pytest.raises(InvalidInput):
        thread.subscribe("nowhere")


def _never() -> treadle.RetryPolicy:
    return treadle.RetryPolicy(max_retries=0)


def test_a_timeout_of_a_result(runtime: sync.Runtime) -> None:
    run = runtime.create_thread(agent_of([Pause(60), Text("x")])).send("one")
    with pytest.raises(RunTimeout):
        run.result(timeout=0.01)
    run.cancel()
    assert run.result(raise_on_incomplete=False).status == "cancelled"


def test_subscriptions(runtime: sync.Runtime) -> None:
    thread = runtime.create_thread(agent_of("Hello.", "Again."))
    with thread.subscribe() as events, runtime.subscribe(types=["run.completed"]) as desk:
        run = thread.send("one")
        assert next(events).type == "message.added"
        position = events.position
        assert next(desk).event.type == "run.completed"
        assert desk.position
        with run.subscribe() as of_run:
            assert [event.type for event in of_run][-1] == "run.completed"
            assert of_run.is_over
        envelopes = thread.subscribe(position).envelopes(heartbeat=0.01)
        seen = list(takewhile(lambda envelope: envelope is not None, envelopes))
        assert [envelope.event.type for envelope in seen if envelope][-1] == "run.completed"
        assert events.statistics().waiting >= 0


def test_heartbeats_lose_no_event(runtime: sync.Runtime) -> None:
    thread = runtime.create_thread(agent_of([Pause(0.3), Text("Hello.")]))
    run = thread.send("one")
    subscription = run.subscribe()
    seen = list(subscription.envelopes(heartbeat=0.02))
    assert None in seen
    types = [envelope.event.type for envelope in seen if envelope is not None]
    assert (types[0], types[-1]) == ("message.added", "run.completed")
    desk = runtime.subscribe(after="start").events(heartbeat=0.02)
    first = [next(desk) for _ in range(5)]
    assert first[0] is not None
    assert first[-1] is None


def test_a_stream_that_is_left_ends(runtime: sync.Runtime) -> None:
    closed = threading.Event()

    async def numbers() -> AsyncGenerator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            closed.set()

    loop = runtime._loop
    for number in iterate(loop, numbers()):
        if number == 3:
            break
    assert closed.wait(SLOW)
    thread = runtime.create_thread(agent_of([Text("a"), Pause(60)]))
    run = thread.send("one")
    for _ in run.text_stream():
        break
    with thread.subscribe() as events:
        waiting = threading.Thread(target=lambda: list(events))
        waiting.start()
        time.sleep(0.05)
        events.close()  # ends the wait of the other thread
        waiting.join(SLOW)
        assert not waiting.is_alive()
    run.cancel()


def test_threads_of_the_caller(runtime: sync.Runtime) -> None:
    thread = runtime.create_thread(agent_of(*["Hello."] * 64))
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda n: thread.send(f"message {n}"), range(64)))
        texts = list(pool.map(lambda run: "".join(run.text_stream()), runs))
    assert texts == ["Hello."] * 64
    assert len({run.id for run in runs}) == 64


def test_a_plain_tool_may_use_it_and_an_async_one_may_not(runtime: sync.Runtime) -> None:
    seen: list[object] = []

    @tool
    def count(context: RunContext) -> int:
        """Counts."""
        return len(runtime.connect(context.thread_id).events())

    @tool
    async def block() -> str:
        """Would block the loop."""
        with pytest.raises(ConfigurationError, match="plain function") as caught:
            runtime.threads()
        seen.append(caught.value)
        return "refused"

    script = [[Call("count", "{}"), Call("block", "{}")], "Done."]
    thread = runtime.create_thread(agent_of(*script, tools=[count, block]))
    assert thread.send("go").text() == "Done."
    assert len(seen) == 1
    outputs = [item for item in thread.history() if isinstance(item, treadle.FunctionCallOutput)]
    assert [output.is_error for output in outputs] == [False, False]


def test_a_shutdown_ends_the_calls_of_other_threads() -> None:
    ends: list[BaseException] = []

    def wait_for(call: Callable[[], object]) -> None:
        try:
            call()
        except TreadleError as error:
            ends.append(error)

    runtime = sync.open()
    runtime.start()
    thread = runtime.create_thread(agent_of([Pause(60), Text("x")]))
    run = thread.send("one")
    events = thread.subscribe()
    calls = [run.result, lambda: list(run.text_stream()), lambda: list(events)]
    threads = [threading.Thread(target=wait_for, args=[call]) for call in calls]
    for each in threads:
        each.start()
    time.sleep(0.1)
    runtime.shutdown()
    for each in threads:
        each.join(SLOW)
        assert not each.is_alive()
    assert ends
    assert all(isinstance(end, RunInterrupted | JournalClosed) for end in ends)
    runtime.shutdown()
    for call in (run.result, thread.events, lambda: next(events)):
        with pytest.raises(JournalClosed, match=r"treadle\.sync\.open"):
            call()
    with pytest.raises(ConfigurationError, match="started before"):
        runtime.start()


def test_a_runtime_that_cannot_open_has_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(TreadleError):
        sync.open(f"sqlite:///{tmp_path / 'missing' / 'a.db'}").start()
    assert threading.active_count() <= before
    with pytest.raises(JournalClosed):
        sync.open().threads()


def run_program(code: str, tmp_path: Path) -> tuple[int, str, str]:
    begin = f"""
import os, signal, sys, threading, time
import treadle
from treadle import Agent, sync
from treadle.testing import Pause, ScriptedModel, Text
agent = Agent(ScriptedModel([[Text("a"), Pause(60)]] * 9), name="a")
url = "sqlite:///{tmp_path / "a.db"}"
"""
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        check=False,
        timeout=SLOW * 2,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_works_inside_a_running_loop(tmp_path: Path) -> None:
    code = """
import asyncio

async def cell():
    hello = Agent(ScriptedModel(["Hello."]), name="b")
    with sync.open(url, agents=[hello]) as runtime:
        print(runtime.create_thread("b").send("hi").text())

asyncio.run(cell())
"""
    assert run_program(code, tmp_path) == (0, "Hello.\n", "")


INTERRUPT = "threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()"


@pytest.mark.parametrize("wait", ["run.result()", "list(run.text_stream())", "list(events)"])
def test_ctrl_c(wait: str, tmp_path: Path) -> None:
    code = f"""
with sync.open(url, agents=[agent]) as runtime:
    thread = runtime.create_thread("a")
    run = thread.send("hi")
    events = thread.subscribe()
    {INTERRUPT}
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted", run.info().status)
print("closed")
"""
    code_, out, err = run_program(code, tmp_path)
    assert (code_, out, err) == (0, "interrupted in_progress\nclosed\n", "")


def test_ctrl_c_ends_a_program_that_does_not_catch_it(tmp_path: Path) -> None:
    code = f"""
with sync.open(url, agents=[agent]) as runtime:
    run = runtime.create_thread("a").send("hi")
    {INTERRUPT}
    run.result()
"""
    _, out, err = run_program(code, tmp_path)
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_program_that_forgets_to_shut_down_ends(tmp_path: Path) -> None:
    code = """
runtime = sync.open(url, agents=[agent])
runtime.start()
run = runtime.create_thread("a").send("hi")
next(run.text_stream())
print(run.id)
"""
    code_, out, err = run_program(code, tmp_path)
    assert (code_, err) == (0, "")
    with sync.open(f"sqlite:///{tmp_path / 'a.db'}", drive=False) as runtime:
        assert runtime.run(out.strip()).info().status == "in_progress"


def test_a_fork_is_refused(tmp_path: Path) -> None:
    code = """
runtime = sync.open(url, agents=[agent])
runtime.start()
thread = runtime.create_thread("a")
events = thread.subscribe()
stream = thread.send("hi").text_stream()
next(stream)
child = os.fork()
if not child:
    for call in (thread.events, runtime.start, lambda: next(events), events.close):
        try:
            call()
        except treadle.errors.ConfigurationError as error:
            assert "fork" in error.message
        else:
            print("not refused")
    try:
        next(stream)
    except treadle.errors.ConfigurationError:
        pass
    del events, stream
    runtime.shutdown()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert len(thread.events()) > 1
runtime.shutdown()
"""
    code_, out, err = run_program(
        "import warnings; warnings.simplefilter('ignore')\n" + code, tmp_path
    )
    assert (code_, out, err) == (0, "7\n", "")
