"""The budget of an agent's context: its strategy, and the numbers that follow for its model."""

from collections.abc import Callable
from importlib import import_module

from msgspec import Struct

from treadle.domain.usage import Price
from treadle.errors import ConfigurationError
from treadle.memory.compaction.strategies import ContextStrategy, NoCompaction, Summarize
from treadle.memory.compaction.tokens import Count
from treadle.models.base import Model
from treadle.models.resolve import resolve_model
from treadle.models.retry import RetryPolicy
from treadle.models.windows import window_of

MOST_RESERVED = 32_000
SUMMARY_TOKENS = 2_000


class Summarizer(Struct, frozen=True):
    """A model that writes summaries: how long its requests may be, and what it costs, if known."""

    model: Model
    window: int
    price: Price | None


class ContextBudget(Struct, frozen=True, kw_only=True):
    """How long the requests of an agent may be, and what is done about longer ones.

    All in tokens: a request may have `limit` of them; above `threshold` it is made shorter, to
    `goal`. `messages` and `keep` are the same for messages. A summary has about `summary` tokens.
    """

    strategy: ContextStrategy
    window: int
    limit: int
    threshold: int
    goal: int
    keep: int
    summary: int
    max_messages: int | None = None
    messages: int | None = None
    summarizers: tuple[Summarizer, ...] = ()
    retry: RetryPolicy = RetryPolicy()

    @property
    def count(self) -> Count | None:
        """The tokenizer, if there is one."""
        return self.strategy.count

    @property
    def block(self) -> str:
        """The label of the block in which the summary lives; empty where it is a message."""
        return self.strategy.block if isinstance(self.strategy, Summarize) else ""

    @property
    def described(self) -> tuple[object, ...]:
        """What tells this budget from others."""
        strategy = self.strategy
        return (
            type(strategy).__name__,
            self.limit,
            self.threshold,
            self.goal,
            self.keep,
            self.max_messages,
            [one.model.name for one in self.summarizers],
            self.block,
            strategy.instructions if isinstance(strategy, Summarize) else None,
        )


def budget_of(
    strategy: ContextStrategy,
    model: Model,
    *,
    max_output_tokens: int | None = None,
    retry: RetryPolicy,
    price_of: Callable[[str], Price | None],
) -> ContextBudget:
    """Returns the budget that a strategy is for an agent with `model`.

    `price_of` finds the price of a model. Raises `ConfigurationError` where the window is not
    known, or its parts leave nothing of it.
    """
    if not isinstance(strategy, ContextStrategy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"context={strategy!r:.100} is no strategy; give it SlidingWindow(…), Summarize(…) or "
            "NoCompaction(…) of treadle.memory."
        )
    window = strategy.max_tokens or window_of(model.name)
    if window is None:
        raise ConfigurationError(
            f"The window of {model.name!r} is not known; say how long a request may be: "
            f"{type(strategy).__name__}(max_tokens=…)."
        )
    reserve = strategy.reserve
    if reserve is None:
        reserve = max_output_tokens or min(MOST_RESERVED, window // 8)
    limit = window - reserve
    if limit < 1:
        raise ConfigurationError(
            f"A reserve of {reserve:,} tokens for the response leaves nothing of a window of "
            f"{window:,}; make it smaller, or max_tokens larger."
        )
    if isinstance(strategy, NoCompaction):
        return ContextBudget(
            strategy=strategy,
            window=window,
            limit=limit,
            threshold=limit,
            goal=limit,
            keep=0,
            summary=0,
        )
    threshold = max(1, min(limit, int(window * strategy.share)))
    most = strategy.max_messages
    summarizes = isinstance(strategy, Summarize)
    return ContextBudget(
        strategy=strategy,
        window=window,
        limit=limit,
        threshold=threshold,
        goal=threshold // 2,
        keep=strategy.keep,
        summary=min(SUMMARY_TOKENS, threshold // 8) if summarizes else 0,
        max_messages=most,
        messages=None if most is None else max(strategy.keep, most // 2),
        summarizers=_summarizers(strategy, model, window, price_of) if summarizes else (),
        retry=retry,
    )


def _summarizers(
    strategy: Summarize, model: Model, window: int, price_of: Callable[[str], Price | None]
) -> tuple[Summarizer, ...]:
    import_module("treadle.memory.compaction.summary_writer")  # few programs need it, and these now
    own = model if strategy.model is None else resolve_model(strategy.model)
    models = [own]
    if strategy.fallback_model is not None:
        models.append(resolve_model(strategy.fallback_model))
    return tuple(
        Summarizer(
            one, window if one is model else window_of(one.name) or window, price_of(one.name)
        )
        for one in models
    )
