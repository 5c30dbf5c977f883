"""The budget of an agent's context: its strategy, and the limits that follow for its model."""

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
    """A model that writes summaries, with its window in tokens and its price, if known."""

    model: Model
    window: int
    price: Price | None


class ContextBudget(Struct, frozen=True, kw_only=True):
    """The limits of an agent's requests, and the strategy that shortens longer ones.

    - `window`: the tokens of request and response together. `limit`: of the request alone.
    - `threshold`, `goal`: a request above `threshold` tokens is shortened to `goal`.
    - `max_messages`, `messages`: the same in numbers of messages; None for no limit.
    - `keep`: the number of messages that stay at least.
    - `summary`: the approximate tokens of a summary.
    - `summarizers`, `retry`: the models that write it, in the order in which they are tried.
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
        """The tokenizer, or None."""
        return self.strategy.count

    @property
    def block(self) -> str:
        """The label of the block that contains the summary; empty if it is a message."""
        return self.strategy.block if isinstance(self.strategy, Summarize) else ""

    @property
    def described(self) -> tuple[object, ...]:
        """The values that distinguish this budget from others."""
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
    """Returns the budget of a strategy for an agent with `model`.

    - `max_output_tokens`: of the agent; reserved for the response unless the strategy has a
      `reserve`.
    - `price_of`: returns the price of a model by its name.

    Raises `ConfigurationError` if the window is unknown, or too small for the reserve.
    """
    if not isinstance(strategy, ContextStrategy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"context={strategy!r:.100} is not a strategy; pass SlidingWindow(…), Summarize(…) or "
            "NoCompaction(…) of treadle.memory."
        )
    window = strategy.max_tokens or window_of(model.name)
    if window is None:
        raise ConfigurationError(
            f"The window of {model.name!r} is not known; specify it as "
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
    import_module(
        "treadle.memory.compaction.summary_writer"
    )  # imported here, so that the first summary need not wait for it
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
