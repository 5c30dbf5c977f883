"""The contexts of agents, and the limits that follow from them."""

from collections.abc import Callable

import pytest

from treadle import Agent, Block, Limits, ModelSettings, Price
from treadle.errors import ConfigurationError, UnknownModel
from treadle.loop.definition import hash_of
from treadle.memory.compaction.budget import ContextBudget, budget_of
from treadle.memory.compaction.strategies import (
    ContextStrategy,
    NoCompaction,
    SlidingWindow,
    Summarize,
)
from treadle.models import PRICES
from treadle.models.retry import RetryPolicy
from treadle.models.windows import window_of
from treadle.testing import ScriptedModel


def budget(
    strategy: object, model: str = "m", max_output_tokens: int | None = None
) -> ContextBudget:
    return budget_of(
        strategy,  # type: ignore[arg-type]
        ScriptedModel([], name=model),
        max_output_tokens=max_output_tokens,
        retry=RetryPolicy(),
        price_of=lambda name: None,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SlidingWindow(max_tokens=0), "SlidingWindow.max_tokens must be a number"),
        (lambda: SlidingWindow(max_tokens=1.5), "max_tokens must be a number"),  # type: ignore[arg-type]
        (lambda: SlidingWindow(keep=0), "SlidingWindow.keep must be at least 1"),
        (lambda: Summarize(keep=9, max_messages=8), "Summarize.keep is 9 and max_messages is 8"),
        (lambda: SlidingWindow(max_messages=0), "max_messages must be a number"),
        (lambda: SlidingWindow(share=0), "share must be above 0 and at most 1"),
        (lambda: Summarize(share=1.1), "Summarize.share must be above 0"),
        (lambda: SlidingWindow(share=float("nan")), "share must be above 0"),
        (lambda: SlidingWindow(max_tokens=9, reserve=9), "leaves nothing of a window of 9"),
        (lambda: NoCompaction(max_tokens=9, reserve=10), "leaves nothing"),
        (lambda: NoCompaction(reserve=-1), "NoCompaction.reserve must be a number of at least 0"),
        (lambda: Summarize(timeout=0), "Summarize.timeout must be above 0"),
        (lambda: Summarize(block="so far"), "so far"),
    ],
)
def test_contradictory_settings_are_refused(
    make: Callable[[], ContextStrategy], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_the_numbers_that_follow() -> None:
    known = budget(SlidingWindow(), "gpt-4o-2024-08-06")
    assert (known.window, known.limit) == (128_000, 112_000)
    assert (known.threshold, known.goal, known.keep) == (102_400, 51_200, 10)
    assert (known.messages, known.max_messages, known.summarizers) == (None, None, ())
    assert known.block == ""
    small = budget(SlidingWindow(max_tokens=1_000, share=1, reserve=0, max_messages=30))
    assert (small.limit, small.threshold, small.messages) == (1_000, 1_000, 15)
    large = budget(SlidingWindow(max_tokens=1_000_000, keep=20, max_messages=30), "m", 900)
    assert (large.limit, large.messages) == (999_100, 20)
    assert budget(SlidingWindow(max_tokens=1_000_000)).limit == 968_000
    tight = budget(SlidingWindow(max_tokens=1_000, reserve=600))
    assert (tight.limit, tight.threshold) == (400, 400)
    none = budget(NoCompaction(max_tokens=800))
    assert (none.limit, none.threshold, none.summary) == (700, 700, 0)


def test_an_unknown_window_must_be_specified() -> None:
    with pytest.raises(ConfigurationError, match=r"'m' is not known; .* NoCompaction\(max_tokens="):
        budget(NoCompaction())
    with pytest.raises(ConfigurationError, match="leaves nothing of a window of 1,000"):
        budget(SlidingWindow(max_tokens=1_000), "m", 2_000)
    with pytest.raises(ConfigurationError, match="is not a strategy"):
        budget("summarize")


def test_windows_are_known_by_the_name_without_its_date() -> None:
    assert window_of("claude-sonnet-4-5-20250929") == window_of("claude-sonnet-4-5") == 200_000
    assert window_of("gpt-4o-2024-08-06") == 128_000
    assert window_of("gpt-4o-latest") is None


def test_which_models_write_summaries() -> None:
    cheap, other = ScriptedModel([], name="gpt-4o-mini"), ScriptedModel([], name="x")
    strategy = Summarize(max_tokens=40_000, model=cheap, fallback_model=other, block="b")
    made = budget(strategy)
    assert [(one.model, one.window) for one in made.summarizers] == [
        (cheap, 128_000),
        (other, 40_000),
    ]
    assert (made.summary, made.block) == (2_000, "b")
    assert budget(Summarize(max_tokens=4_000)).summary == 400
    with pytest.raises(UnknownModel):
        budget(Summarize(max_tokens=4_000, model="nothing"))


def test_prices_of_summaries() -> None:
    model, cheap = ScriptedModel([], name="m"), ScriptedModel([], name="cheap")
    limits = Limits(price=Price(1, 2), prices={"cheap": Price(3, 4)})
    strategy = Summarize(max_tokens=9_000, model=cheap, fallback_model=model)
    agent = Agent(model, context=strategy, limits=limits)
    assert agent.budget is not None
    assert [one.price for one in agent.budget.summarizers] == [Price(3, 4), Price(1, 2)]
    listed = Summarize(max_tokens=9_000, model=ScriptedModel([], name="gpt-5-nano"))
    nano = Agent(model, context=listed).budget
    assert nano is not None
    assert nano.summarizers[0].price == PRICES["gpt-5-nano"]
    unknown = Agent(model, context=Summarize(max_tokens=9_000)).budget
    assert unknown is not None
    assert unknown.summarizers[0].price is None


def test_the_definition_of_an_agent_includes_its_budget() -> None:
    model = ScriptedModel([], name="m")
    hashes = {
        hash_of(Agent(model, context=context))
        for context in (
            None,
            NoCompaction(max_tokens=9_000),
            SlidingWindow(max_tokens=9_000),
            SlidingWindow(max_tokens=9_001),
            SlidingWindow(max_tokens=9_000, keep=4),
            SlidingWindow(max_tokens=9_000, max_messages=40),
            Summarize(max_tokens=9_000),
            Summarize(max_tokens=9_000, block="b"),
            Summarize(max_tokens=9_000, instructions="Be brief."),
            Summarize(max_tokens=9_000, model=ScriptedModel([], name="o")),
        )
    }
    assert len(hashes) == 10
    assert hash_of(Agent(model, context=None)) == hash_of(Agent(model))
    limited = Agent(
        model,
        context=SlidingWindow(max_tokens=9_000),
        settings=ModelSettings(max_output_tokens=500),
    )
    assert limited.budget is not None
    assert limited.budget.limit == 8_500


def test_a_summary_cannot_be_in_a_shared_block() -> None:
    strategy = Summarize(max_tokens=9_000, block="team")
    with pytest.raises(ConfigurationError, match="cannot be kept in the block 'team'"):
        Agent(ScriptedModel([]), context=strategy, blocks=[Block("team", shared="all")])
