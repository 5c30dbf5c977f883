"""Limits of what owners spend in a period, on every journal."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle import Agent, Limits, Price, Runtime, SpendingLimit, tool
from treadle.actors.spending import period_at
from treadle.clock import now
from treadle.domain.spending import SLOT, Spending
from treadle.errors import ConfigurationError, InvalidInput, SpendingLimitReached, error_of
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
USAGE = treadle.Usage(input_tokens=60, output_tokens=40, requests=1)
LIMITS = Limits(price=Price(input=10_000, output=10_000))
"""Each response costs 1."""
BERLIN = ZoneInfo("Europe/Berlin")  # read here, and not on an event loop


def answers(count: int, **options: object) -> Agent:
    script = [Turn([Text(f"Answer {n}.")], usage=USAGE) for n in range(count)]
    return Agent(ScriptedModel(script), name="a", limits=LIMITS, **options)  # type: ignore[arg-type]


async def test_an_owner_that_reached_a_limit_is_refused(open_runtime: Open) -> None:
    agent = answers(9)
    limit = SpendingLimit(max_tokens=200, period="day", tz="Europe/Berlin")
    async with open_runtime(agent, spending=[limit]) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        for number in range(2):
            assert (await (await thread.send("hi")).result()).text == f"Answer {number}."
        assert await runtime.spending(owner="ann") == Spending(200, 2.0)
        # A queued message, another thread, and a run after the refused one: one rule for all.
        other = await runtime.create_thread(agent, owner="ann")
        for run in [await thread.send("more"), await thread.send("again"), await other.send("x")]:
            with pytest.raises(SpendingLimitReached) as caught:
                await run.result()
            assert not caught.value.retryable
            resets_at = caught.value.resets_at
            assert resets_at is not None
            assert timedelta() < resets_at - datetime.fromtimestamp(now(), UTC) <= timedelta(days=1)
            assert resets_at.astimezone(BERLIN).hour == 0
            assert (await run.info()).steps == 0
        bob = await runtime.create_thread(agent, owner="bob")
        assert (await (await bob.send("hi")).result()).text == "Answer 2."
        assert await runtime.for_owner("bob").spending() == Spending(100, 1.0)
        with pytest.raises(InvalidInput):
            await runtime.for_owner("bob").spending(owner="ann")


async def test_a_period_ends(open_runtime: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = answers(9)
    time = now()
    monkeypatch.setattr("treadle.actors.spending.now", lambda: time)
    async with open_runtime(agent, spending=[SpendingLimit(max_cost=1)]) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        await (await thread.send("hi")).result()
        with pytest.raises(SpendingLimitReached) as caught:
            await (await thread.send("hi")).result()
        assert caught.value.resets_at is not None
        time = caught.value.resets_at.timestamp() - 1
        with pytest.raises(SpendingLimitReached):
            await (await thread.send("hi")).result()
        time += 1
        assert (await (await thread.send("hi")).result()).text == "Answer 1."


async def test_a_limit_is_checked_before_each_request(open_runtime: Open) -> None:
    @tool
    async def look() -> str:
        """Looks."""
        return "seen"

    script = [Turn([Text("I look. "), Call("look", "{}")], usage=USAGE), "never"]
    agent = Agent(ScriptedModel(script), name="a", tools=[look], limits=LIMITS)
    async with open_runtime(agent, spending=[SpendingLimit(max_cost=0.5)]) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(SpendingLimitReached):
            await (await thread.send("hi")).result()
        kinds = [type(item).__name__ for item in await thread.history()]
        assert kinds == ["Message", "Message", "FunctionCall", "FunctionCallOutput"]


async def test_agents_that_work_for_others_are_counted_once(open_runtime: Open) -> None:
    worker = Agent(
        ScriptedModel([Turn([Text("Done.")], usage=USAGE)]), name="worker", limits=LIMITS
    )
    script = [
        Turn([Call("worker", '{"message": "go"}')], usage=USAGE),
        Turn([Text("Well.")], usage=USAGE),
    ]
    agent = Agent(ScriptedModel(script), name="a", tools=[worker.as_tool()], limits=LIMITS)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        result = await (await thread.send("hi")).result()
        assert result.text == "Well."
        assert await runtime.spending(owner="ann") == Spending(300, 3.0)


async def test_what_was_spent_survives_forks_deletions_and_a_restart(open_runtime: Open) -> None:
    agent = answers(9)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        await (await thread.send("hi")).result()
        await thread.fork()
        await thread.remove_event(1)
        await thread.delete()
        await runtime.delete_owner("ann")
    async with open_runtime(agent, spending=[SpendingLimit(max_tokens=100)]) as runtime:
        assert await runtime.spending(owner="ann", period="day") == Spending(100, 1.0)
        thread = await runtime.create_thread(agent, owner="ann")
        with pytest.raises(SpendingLimitReached):
            await (await thread.send("hi")).result()


async def test_limits_may_depend_on_the_owner(open_runtime: Open) -> None:
    def plan(owner: str) -> list[SpendingLimit]:
        return [] if owner == "paid" else [SpendingLimit(max_tokens=0)]

    async def later(owner: str) -> list[SpendingLimit]:
        await asyncio.sleep(0)
        return plan(owner)

    for function in (plan, later):
        agent = answers(9)
        async with open_runtime(agent, spending=function) as runtime:
            paid = await runtime.create_thread(agent, owner="paid")
            free = await runtime.create_thread(agent, owner="free")
            assert (await (await paid.send("hi")).result()).text == "Answer 0."
            with pytest.raises(SpendingLimitReached):
                await (await free.send("hi")).result()


async def test_a_function_that_fails_fails_the_run(open_runtime: Open) -> None:
    def broken(owner: str) -> list[SpendingLimit]:
        raise OSError(owner)

    for function in (broken, lambda _: [3], lambda _: None):
        agent = answers(9)
        async with open_runtime(agent, spending=function) as runtime:
            thread = await runtime.create_thread(agent, owner="ann")
            with pytest.raises(treadle.TreadleError):
                await (await thread.send("hi")).result()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, ConfigurationError),
        ({"max_tokens": -1}, ConfigurationError),
        ({"max_cost": float("nan")}, ConfigurationError),
        ({"max_cost": "5"}, ConfigurationError),
        ({"max_cost": 1, "period": "week"}, InvalidInput),
        ({"max_cost": 1, "tz": "Nowhere/At_All"}, InvalidInput),
    ],
)
def test_wrong_limits(fields: dict[str, object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        SpendingLimit(**fields)  # type: ignore[arg-type]


def test_wrong_lists_of_limits() -> None:
    for wrong in (SpendingLimit(max_cost=1), [5], "day"):
        with pytest.raises(ConfigurationError, match="SpendingLimit"):
            treadle.open(spending=wrong)  # type: ignore[arg-type]


def test_an_error_without_a_time() -> None:
    error = error_of("spending_limit_reached", "It is used up.", retryable=False)
    assert isinstance(error, SpendingLimitReached)
    assert error.resets_at is None


@given(
    at=st.floats(0, 4e9),
    period=st.sampled_from(["day", "month"]),
    tz=st.sampled_from(sorted(available_timezones() - {"localtime"}) or ["UTC"]),
)
def test_periods(at: float, period: str, tz: str) -> None:
    """A time is in its period, the next one begins where it ends, and slots are never divided."""
    begin, end = period_at(at, period, tz)  # type: ignore[arg-type]
    assert begin.timestamp() <= at < end.timestamp()
    assert period_at(end.timestamp(), period, tz)[0].timestamp() == end.timestamp()  # type: ignore[arg-type]
    if at > 1e9:  # before, some time zones had other offsets
        assert begin.timestamp() % SLOT == end.timestamp() % SLOT == 0
