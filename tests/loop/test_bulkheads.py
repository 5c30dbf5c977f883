"""What foreign code raises stays in its own run: each call-out, each kind of exception."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import treadle
from treadle import Agent, Hooks, hook, tool
from treadle.domain.events import ToolStarted
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCallOutput
from treadle.errors import ToolFailed
from treadle.jobs import Job
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, ScriptedModel, Text, Turn
from treadle.tools import call as call_module
from treadle.tools.failure import reraise_interrupt

pytestmark = pytest.mark.anyio


class Panic(BaseException):
    """As extensions in Rust raise it."""


class Mute(BaseException):
    def __str__(self) -> str:
        raise Panic("no message")


def _cancels() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def raising(make: Callable[[], BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise make()

    return act


KINDS: dict[str, Callable[[], None]] = {
    "exception": raising(lambda: ValueError("no")),
    "panic": raising(lambda: Panic("no")),
    "mute": raising(Mute),
    "exit": raising(lambda: SystemExit(3)),
    "generator exit": raising(GeneratorExit),
    "stop": raising(lambda: StopIteration("x")),
    "stop async": raising(lambda: StopAsyncIteration("x")),
    "timeout": raising(lambda: TimeoutError("own")),
    "cancelled": raising(asyncio.CancelledError),
    "group": raising(lambda: BaseExceptionGroup("both", [Panic("a"), SystemExit(1)])),
    "recursion": raising(RecursionError),
    "memory": raising(MemoryError),
    "cancels its task": _cancels,
}

Act = Callable[[], None]


def _plain(act: Act) -> Any:
    def function(*_: Any) -> None:
        act()

    return function


def _async(act: Act) -> Any:
    async def function(*_: Any) -> None:
        act()
        await asyncio.sleep(0)

    return function


def _late(act: Act) -> Any:
    async def function(*_: Any) -> None:
        await asyncio.sleep(1)
        act()
        await asyncio.sleep(0)

    return function


def _agent(**options: Any) -> Agent[Any, Any]:
    @tool
    async def fine() -> str:
        """Is fine."""
        return "fine"

    script = [[Text("Look: "), Call("fine", "{}", "c1")], *["Done."] * 8]
    return Agent(ScriptedModel(script), name="bad", **{"tools": [fine], **options})


def _tool_agent(function: Any) -> Agent[Any, Any]:
    bad = tool(name="bad", description="Fails.")(function)
    return Agent(
        ScriptedModel([[Call("bad", "{}", "c1")], *["Done."] * 8]), name="bad", tools=[bad]
    )


def _as_tool(make: Callable[[Act], Any]) -> Callable[[Act], Agent[Any, Any]]:
    def agent(act: Act) -> Agent[Any, Any]:
        function = make(act)
        if asyncio.iscoroutinefunction(function):

            async def bad() -> None:
                await function()

            return _tool_agent(bad)

        def plain() -> None:
            function()

        return _tool_agent(plain)

    return agent


def _as_hook(point: str, make: Callable[[Act], Any], **options: Any) -> Any:
    return lambda act: _agent(hooks=Hooks(**{point: hook(make(act), **options)}))  # type: ignore[arg-type]


class _Model(ScriptedModel):
    def __init__(self, act: Act) -> None:
        super().__init__([*["Done."] * 8])
        self._act: Act | None = act

    async def stream(self, request: Any) -> Any:
        act, self._act = self._act, None
        if act is not None:
            act()
        async for event in super().stream(request):
            yield event


class _Source:
    name = "source"
    is_local = True

    def __init__(self, act: Act) -> None:
        self._act = act

    async def tools(self) -> Any:
        self._act()
        await asyncio.sleep(0)
        return []

    async def aclose(self) -> None: ...


POINTS = ("before_model", "before_tool", "after_tool", "after_completion", "on_run_end", "on_event")
CALL_OUTS: dict[str, Callable[[Act], Agent[Any, Any]]] = {
    "plain tool": _as_tool(_plain),
    "async tool": _as_tool(_async),
    "late tool": _as_tool(_late),
    "plain instructions": lambda act: _agent(instructions=_plain(act)),
    "async instructions": lambda act: _agent(instructions=_async(act)),
    "late instructions": lambda act: _agent(instructions=_late(act)),
    "model": lambda act: Agent(_Model(act), name="bad"),
    "source": lambda act: _agent(tools=[_Source(act)]),
    **{f"plain {point}": _as_hook(point, _plain) for point in POINTS},
    **{f"async {point}": _as_hook(point, _async) for point in POINTS},
    **{f"late {point}": _as_hook(point, _late) for point in POINTS if point != "on_event"},
    "isolated hook": _as_hook("after_completion", _async, isolated=True),
    "blocking hook": _as_hook("after_completion", _plain, blocking=True),
}
# These run in threads, without a task; and a model is foreign code that is awaited as it is.
UNABLE = {(where, "cancels its task") for where in ("plain tool", "blocking hook", "model")}
CASES = [
    pytest.param(where, kind, id=f"{where}: {kind}")
    for where in CALL_OUTS
    for kind in KINDS
    if (where, kind) not in UNABLE
]


async def ended(result: Any) -> str:
    """How a run ended: its status, or the code of its error."""
    try:
        return (await result).status
    except treadle.TreadleError as error:
        return error.code
    except Exception:  # noqa: BLE001 - what a model of the user's raises stays as it is
        return "internal_error"


def expected(where: str) -> set[str]:
    if where == "model":
        return {"internal_error"}
    return {"hook_failed", "completed"}


@pytest.mark.parametrize(("where", "kind"), CASES)
async def test_in_the_foreground(where: str, kind: str) -> None:
    agent, outer = CALL_OUTS[where](KINDS[kind]), asyncio.current_task()
    async with asyncio.timeout(60) as limit:
        assert await ended(agent.run("go")) in expected(where)
    assert not limit.expired()
    assert outer is not None
    assert not outer.cancelling()


@pytest.mark.parametrize(("where", "kind"), CASES)
async def test_on_a_kept_thread_with_a_neighbour(where: str, kind: str) -> None:
    bad = CALL_OUTS[where](KINDS[kind])
    slow = Turn((Text("hello " * 20, deltas=20),), every=0.1)
    good = Agent(ScriptedModel([slow, "Again."]), name="good")
    async with treadle.Runtime(MemoryJournal(), agents=[bad, good]) as runtime, asyncio.timeout(90):
        neighbour, thread = await runtime.create_thread(good), await runtime.create_thread(bad)
        innocent = await neighbour.send("stream")
        await asyncio.sleep(0.3)
        assert await ended((await thread.send("go")).result()) in expected(where)
        assert (await innocent.result()).text == "hello " * 20
        assert (await (await neighbour.send("again")).result()).text == "Again."
        # The thread is not stuck either, whatever happens to its next run.
        await ended((await thread.send("again")).result())
        runs = await thread.runs()
        assert [run.status in {"completed", "failed"} for run in runs] == [True, True]
        require_valid(await thread.history())


@tool
async def risky() -> str:
    """Fails, and the run with it."""
    await asyncio.sleep(1)
    raise Panic("no")


async def test_a_failure_is_not_lost_while_the_step_waits_for_approval() -> None:
    @tool(needs_approval=True)
    async def careful() -> str:
        """Asks."""
        return ""

    agent = Agent(
        ScriptedModel([[Call("risky", "{}", "c1"), Call("careful", "{}", "c2")], "Next."]),
        tools=[tool(on_error="raise")(risky.function), careful],
    )
    async with treadle.Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        with pytest.raises(ToolFailed, match="risky failed: "):
            await run.result()
        outputs = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert [o.text for o in outputs] == [
            "risky failed: Panic: no",
            "The run failed: it did not run.",
        ]
        assert (await (await thread.send("next")).result()).text == "Next."


@pytest.mark.parametrize("how", ["cancel", "shutdown", "timeout"])
async def test_a_tool_that_swallows_its_cancellation(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()

    @tool(timeout=3 if how == "timeout" else None)
    async def stubborn() -> str:
        """Never gives in."""
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return "late"

    agent = Agent(
        ScriptedModel([[Call("stubborn", "{}", "c1")], "Next.", "Last."]), tools=[stubborn]
    )
    journal, loop = MemoryJournal(), asyncio.get_running_loop()
    async with treadle.Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(1)
        start = loop.time()
        if how == "cancel":
            await run.cancel()
        if how != "shutdown":
            result = await run.result(raise_on_incomplete=False)
            assert result.status == ("cancelled" if how == "cancel" else "completed")
            (output,) = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
            assert output.is_error
            words = "outcome is unknown" if how == "cancel" else "may still be running"
            assert words in output.text
            assert (await (await thread.send("next")).result()).text in {"Next.", "Last."}
    assert loop.time() - start <= 2 * call_module.GRACE_SECONDS
    assert "stubborn did not stop within 5 s" in caplog.text
    assert "1 calls are left behind" in caplog.text
    released.set()
    await asyncio.sleep(1)


async def _swallows(released: asyncio.Event) -> None:
    while not released.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await released.wait()


async def _waits_for_another(released: asyncio.Event) -> None:
    await asyncio.create_task(_swallows(released))


async def _spins(released: asyncio.Event) -> None:
    while not released.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.25)
            await asyncio.sleep(0)


async def _refuses_to_close(released: asyncio.Event) -> None:
    while not released.is_set():
        with contextlib.suppress(asyncio.CancelledError, GeneratorExit):
            await released.wait()


STUBBORN = [_swallows, _waits_for_another, _spins, _refuses_to_close]


@pytest.mark.parametrize("how", ["cancel", "shutdown"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("stubborn", STUBBORN)
async def test_a_hook_that_swallows_its_cancellation(
    stubborn: Any, point: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    released, loop = asyncio.Event(), asyncio.get_running_loop()

    async def bad(*_: Any) -> None:
        await stubborn(released)

    agent, journal = _agent(hooks=Hooks(**{point: bad})), MemoryJournal()  # type: ignore[arg-type]
    async with treadle.Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(1)
        start = loop.time()
        if how == "cancel" and point != "on_run_end":  # else it has ended already
            await run.cancel()
            assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
            assert loop.time() - start <= 2 * call_module.GRACE_SECONDS
            require_valid(await thread.history())
            released.set()
            assert (await (await thread.send("next")).result()).text == "Done."
            start = loop.time()
    assert loop.time() - start <= 2 * call_module.GRACE_SECONDS
    await asyncio.sleep(2 * call_module.GRACE_SECONDS)
    if point != "on_event":
        assert "bad did not stop within 5 s after it was cancelled" in caplog.text
    released.set()
    await asyncio.sleep(1)


async def test_a_hook_has_time_to_clean_up_and_timeouts_of_its_own() -> None:
    done: list[str] = []

    async def careful(*_: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
        await asyncio.sleep(20)  # the timeout was its own, and is over
        done.append("timed out")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(4)
            done.append("cleaned up")

    agent = _agent(hooks=Hooks(after_completion=careful))
    async with treadle.Runtime(MemoryJournal(), agents=[agent]) as runtime:
        run = await (await runtime.create_thread(agent)).send("go")
        await asyncio.sleep(30)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert done == ["timed out", "cleaned up"]


async def test_an_agent_that_works_for_a_hook_is_waited_for() -> None:
    done: list[str] = []

    class Tidy(Job[None]):
        async def task(self) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(8)
                done.append("job")

    @tool
    async def slow(ctx: treadle.RunContext[None]) -> str:
        """Waits for a job."""
        await (await ctx.jobs.submit(Tidy()))
        return ""

    worker = Agent(ScriptedModel([[Call("slow", "{}", "c2")]]), name="worker", tools=[slow])

    async def asks(context: Any, _: Any) -> None:
        try:
            await context.run_agent(worker, "go")
        finally:
            done.append("hook")

    agent = _agent(hooks=Hooks(after_completion=asks))
    async with treadle.Runtime(MemoryJournal(), agents=[agent, worker]) as runtime:
        run = await (await runtime.create_thread(agent)).send("go")
        await asyncio.sleep(5)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert done == ["job", "hook"]


@pytest.mark.parametrize("raises", [False, True])
async def test_deps_that_cancel_the_task_of_the_run_fail_it(raises: bool) -> None:
    acts = [_cancels]

    def deps(_: Any) -> None:
        if acts:
            acts.pop()()
            if raises:
                raise Panic("no")

    agent = _agent()
    async with treadle.Runtime(MemoryJournal(), agents=[agent], deps=deps) as runtime:
        thread = await runtime.create_thread(agent)
        assert await ended((await thread.send("go")).result()) == "hook_failed"
        assert (await (await thread.send("again")).result()).text == "Done."


async def test_a_rule_for_approval_that_cancels_the_task_of_the_run_asks() -> None:
    def rule(_: Any) -> bool:
        _cancels()
        return False

    @tool(needs_approval=rule)
    async def careful() -> str:
        """Asks."""
        return "allowed"

    agent = Agent(ScriptedModel([[Call("careful", "{}", "c1")], "Done."]), tools=[careful])
    async with treadle.Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(1)
        assert [awaits for _, awaits in await thread.pending_calls()] == ["approval"]
        await thread.approve("c1")
        assert (await run.result()).text == "Done."


async def test_an_agent_that_works_for_a_call_is_waited_for() -> None:
    cleaned: list[str] = []

    @tool
    async def tidy() -> str:
        """Takes some time to end."""
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(4)
            cleaned.append("tidy")
        return ""

    helper = Agent(ScriptedModel([[Call("tidy", "{}", "c2")]]), name="helper", tools=[tidy])
    agent = Agent(
        ScriptedModel([[Call("helper", '{"message": "go"}', "c1")]]),
        name="a",
        tools=[helper.as_tool()],
    )
    async with agent.stream("go") as run:
        async for event in run:
            if isinstance(event, ToolStarted):
                break
        await asyncio.sleep(1)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert cleaned == ["tidy"]


async def test_interrupts_keep_their_meaning() -> None:
    assert isinstance(_interrupt_of(KeyboardInterrupt()), KeyboardInterrupt)
    group = BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()])
    assert isinstance(_interrupt_of(group), KeyboardInterrupt)
    assert _interrupt_of(BaseExceptionGroup("one", [SystemExit(1)])) is None
    assert _interrupt_of(asyncio.CancelledError()) is None


def _interrupt_of(error: BaseException) -> BaseException | None:
    try:
        reraise_interrupt(error)
    except BaseException as raised:  # noqa: BLE001
        return raised
    return None
