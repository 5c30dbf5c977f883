import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from treadle import Image, RunContext, tool
from treadle.domain.items import FunctionCall, InputImage, InputText
from treadle.tools import call as call_module
from treadle.tools.call import PreparedCall, RefusedCall, ToolOutcome, execute, prepare
from treadle.tools.context import CallCancelled, CallServices, CancellationToken
from treadle.tools.function import Tool
from treadle.tools.toolset import Toolset

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def now() -> str:
    """Now."""
    return "noon"


class Calls:
    """Makes calls of one tool and keeps what the call said on its way."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.progress: list[str] = []

    async def make(self, made: Tool[..., Any], arguments: str = "{}") -> ToolOutcome:
        prepared = prepare(Toolset([made]), FunctionCall("c1", made.name, arguments))
        return await execute(prepared, self.context(made.name), on_attempt=self._attempt)

    def context(self, name: str) -> RunContext[str]:
        return RunContext(
            deps="d",
            thread_id="t",
            run_id="r",
            call_id="c1",
            tool_name=name,
            _services=CallServices(report=self.progress.append),
        )

    async def _attempt(self, number: int) -> None:
        self.attempts.append(number)


async def output(made: Tool[..., Any], arguments: str = "{}") -> str:
    return (await Calls().make(made, arguments)).output.text


async def test_a_call() -> None:
    calls = Calls()
    outcome = await calls.make(add, '{"a": 1, "b": 2}')
    assert outcome.output.call_id == "c1"
    assert (outcome.output.output, outcome.output.is_error, outcome.error) == ("3", False, None)
    assert calls.attempts == [1]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nowhere", "{}", "There is no tool 'nowhere'. Tools: add, now."),
        ("add", "{", "not valid JSON"),
        ("add", '{"a": 1, "b": 2} more', "not valid JSON"),
        ("add", "[1]", "not an object"),
        ("add", "", "empty"),
        ("add", "  ", "empty"),
        ("add", '{"a": "x"}', "a: Input should be a valid integer"),
        ("add", '{"a": 1, "b": 2, "c": 3}', "c: Extra inputs"),
        ("add", "[" * 100_000, "nested deeper than 128"),
        ("add", '{"a": ' + "[" * 128 + "]" * 128 + "}", "nested deeper than 128"),
        ("add", '{"a": [' + "[]," * 200 + "[]]}", "a: Input should be a valid integer"),
        ("now", '{"x": 1}', "x: Extra inputs"),
    ],
)
async def test_calls_that_cannot_be_made(name: str, arguments: str, words: str) -> None:
    prepared = prepare(Toolset([add, now]), FunctionCall("c1", name, arguments))
    assert isinstance(prepared, RefusedCall)
    calls = Calls()
    outcome = await execute(prepared, calls.context(name), on_attempt=calls._attempt)
    assert words in outcome.output.text
    assert outcome.output.is_error
    assert len(outcome.output.text) < 4000
    assert calls.attempts == []


def test_without_tools_the_model_is_told_so() -> None:
    refused = prepare(Toolset(), FunctionCall("c1", "x" * 10_000, "{}"))
    assert isinstance(refused, RefusedCall)
    assert refused.problem.endswith("Tools: none.")
    assert len(refused.problem) < 300


def test_nothing_is_enough_for_a_tool_that_takes_nothing() -> None:
    assert isinstance(prepare(Toolset([now]), FunctionCall("c1", "now", "")), PreparedCall)


def test_oversized_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "_MAX_ARGUMENTS", 10)
    refused = prepare(Toolset([add]), FunctionCall("c1", "add", '{"a": 1, "b": 2}'))
    assert isinstance(refused, RefusedCall)
    assert "exceed 10 characters" in refused.problem


def test_many_problems_are_told_briefly() -> None:
    class Many(BaseModel):
        values: list[int]

    @tool
    def sum_up(many: Many) -> int:
        """Sums."""
        return 0

    wrong = '{"many": {"values": [' + ", ".join(['"x"'] * 50) + "]}}"
    refused = prepare(Toolset([sum_up]), FunctionCall("c1", "sum_up", wrong))
    assert isinstance(refused, RefusedCall)
    assert "many.values.0" in refused.problem
    assert "and 40 more problems" in refused.problem


class Panic(BaseException):
    """As extensions in Rust raise it."""


def raising(error: BaseException) -> Tool[..., Any]:
    @tool(name="bad")
    async def bad() -> str:
        """Raises."""
        raise error

    return bad


def raising_in_thread(error: BaseException) -> Tool[..., Any]:
    @tool(name="bad")
    def bad() -> str:
        """Raises."""
        raise error

    return bad


@pytest.mark.parametrize("make", [raising, raising_in_thread])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "bad failed: ValueError: no"),
        (SystemExit(3), "bad failed: SystemExit: 3"),
        (Panic("no"), "bad failed: Panic: no"),
        (BaseExceptionGroup("all", [Panic("no")]), "bad failed: BaseExceptionGroup: all (1 sub-"),
        (TimeoutError("own"), "bad failed: TimeoutError: own"),
        (KeyError("k"), "bad failed: KeyError: 'k'"),
    ],
)
async def test_exceptions_become_outputs(
    make: Callable[[BaseException], Tool[..., Any]], error: BaseException, text: str
) -> None:
    outcome = await Calls().make(make(error))
    assert outcome.output.text.startswith(text)
    assert outcome.output.is_error
    assert isinstance(outcome.error, Exception)


@pytest.mark.parametrize("make", [raising, raising_in_thread])
async def test_stop_iteration_is_an_exception_too(
    make: Callable[[BaseException], Tool[..., Any]],
) -> None:
    assert "StopIteration" in await output(make(StopIteration("x")))


async def test_a_tool_that_cancels_itself_has_failed() -> None:
    assert "cancelled itself" in await output(raising(asyncio.CancelledError()))


async def test_a_tool_that_cancels_its_own_task_has_failed() -> None:
    @tool
    async def hasty() -> str:
        """Cancels itself."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        return ""

    assert await output(hasty) == "hasty failed: it cancelled itself."


async def test_a_cancelled_call_is_not_tried_again() -> None:
    @tool(retries=5)
    async def sleepy() -> str:
        """Fails when it is cancelled."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("disturbed") from None
        return ""

    calls = Calls()
    task = asyncio.create_task(calls.make(sleepy))
    await asyncio.sleep(1)
    task.cancel()
    assert (await task).output.text == "sleepy failed: ValueError: disturbed"
    assert calls.attempts == [1]


async def test_long_errors_are_cut() -> None:
    text = await output(raising(ValueError("x" * 10_000)))
    assert len(text) < 2100
    assert "more characters were cut" in text


async def test_a_timeout() -> None:
    @tool(timeout=2)
    async def sleepy() -> str:
        """Sleeps."""
        await asyncio.sleep(60)
        return ""

    outcome = await Calls().make(sleepy)
    assert outcome.output.text == "sleepy timed out after 2 s."
    assert isinstance(outcome.error, TimeoutError)
    assert outcome.seconds == 2


async def test_retries_keep_the_idempotency_key() -> None:
    seen: list[tuple[int, str]] = []

    @tool(retries=2)
    async def flaky(context: RunContext[str]) -> str:
        """Fails twice."""
        seen.append((context.attempt, context.idempotency_key))
        if context.attempt < 3:
            raise ConnectionError("again")
        return "done"

    calls = Calls()
    assert (await calls.make(flaky)).output.text == "done"
    assert seen == [(1, "c1"), (2, "c1"), (3, "c1")]
    assert calls.attempts == [1, 2, 3]
    assert "always" in await output(tool(retries=1)(raising(ConnectionError("always")).function))


async def test_a_timed_out_thread_sees_its_token() -> None:
    stopped = threading.Event()

    @tool(timeout=0.01)
    def patient(context: RunContext[str]) -> str:
        """Waits."""
        context.cancelled.wait(20)
        try:
            context.cancelled.raise_if_set()
        except CallCancelled:
            stopped.set()
        return ""

    assert "timed out" in await output(patient)
    assert await asyncio.get_running_loop().run_in_executor(None, stopped.wait, 10)


def test_a_token_that_is_not_set() -> None:
    token = CancellationToken()
    token.raise_if_set()
    assert not token.wait(0)


async def test_cancellation_is_no_output() -> None:
    @tool
    async def sleepy() -> str:
        """Sleeps."""
        await asyncio.sleep(60)
        return ""

    task = asyncio.create_task(Calls().make(sleepy))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_progress_from_any_thread() -> None:
    @tool
    def work(context: RunContext[str]) -> str:
        """Works."""
        context.progress("half")
        context.progress("x" * 5000)
        return "done"

    calls = Calls()
    await calls.make(work)
    await asyncio.sleep(0)
    assert [len(text) for text in calls.progress] == [4, 2000]


async def test_context_variables_reach_threads() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @tool
    def read() -> str:
        """Reads."""
        return variable.get()

    assert await output(read) == "set"


async def test_a_plain_function_may_return_an_awaitable() -> None:
    @tool
    def later() -> Any:
        """Later."""
        return asyncio.sleep(0, "later")

    assert await output(later) == "later"


class City(BaseModel):
    name: str


def returning(value: object) -> Tool[..., Any]:
    @tool(name="give", max_output_chars=50)
    async def give() -> Any:
        """Gives."""
        return value

    return give


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (None, "null"),
        (3.5, "3.5"),
        ({"a": [1, True]}, '{"a":[1,true]}'),
        (City(name="Rome"), '{"name":"Rome"}'),
        ([City(name="Rome")], '[{"name":"Rome"}]'),
        ("a\ud800b", "a?b"),
        ("x" * 60, "x" * 50 + "\n… [10 more characters were cut]"),
    ],
)
async def test_outputs(value: object, text: str) -> None:
    found = await output(returning(value))
    assert found == text
    found.encode()


@pytest.mark.parametrize(
    ("value", "words"), [(b"raw", "returned bytes"), (object(), "type object, which cannot")]
)
async def test_outputs_that_json_cannot_say(value: object, words: str) -> None:
    outcome = await Calls().make(returning(value))
    assert words in outcome.output.text
    assert outcome.output.is_error


async def test_images() -> None:
    one = (await Calls().make(returning(Image(b"abc", "image/gif")))).output.output
    assert one == (InputImage("data:image/gif;base64,YWJj"),)
    both = (await Calls().make(returning(["see " + "x" * 60, Image(url="https://x/y")]))).output
    assert isinstance(both.output, tuple)
    assert both.output[1] == InputImage("https://x/y")
    assert isinstance(both.output[0], InputText)
    with pytest.raises(ValueError, match="either"):
        Image()


@pytest.mark.real_clock
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_blocking_tools_overlap(anyio_backend: str) -> None:
    together = threading.Barrier(8, timeout=10)

    @tool
    def wait() -> str:
        """Waits for the others."""
        together.wait()
        return "met"

    begin = time.monotonic()
    outcomes = await asyncio.gather(*(Calls().make(wait) for _ in range(8)))
    assert {outcome.output.text for outcome in outcomes} == {"met"}
    assert time.monotonic() - begin < 5


class Touchy(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def _check(cls, value: int) -> int:
        raise KeyError("touchy")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def test_validators_that_raise_anything() -> None:
    @tool
    async def take(value: Touchy) -> str:
        """Takes."""
        return ""

    outcome = await Calls().make(take, '{"value": {"x": 1}}')
    text = "The arguments of take cannot be validated: KeyError: 'touchy'"
    assert (outcome.output.text, outcome.output.is_error) == (text, True)


async def test_an_exception_without_a_message_to_show() -> None:
    assert await output(raising(Mute())) == "bad failed: Mute: (its message cannot be shown)"


async def test_a_thread_that_raises_a_cancellation() -> None:
    assert "cancelled itself" in await output(raising_in_thread(asyncio.CancelledError()))


async def test_problems_are_bounded_as_a_whole() -> None:
    keys = ", ".join(f'"{letter * 1000}": 1' for letter in "abcdefghijkl")
    assert len(await output(now, f"{{{keys}}}")) < 2200


@pytest.mark.parametrize(("level", "traced"), [(logging.WARNING, False), (logging.DEBUG, True)])
async def test_the_traceback_is_logged_for_those_who_debug(
    caplog: pytest.LogCaptureFixture, level: int, traced: bool
) -> None:
    caplog.set_level(level, "treadle.tools")
    await Calls().make(raising(ValueError("no")))
    records = [record for record in caplog.records if record.name == "treadle.tools"]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert records[0].getMessage() == "bad failed: ValueError: no"
    assert bool(records[0].exc_info) is traced
