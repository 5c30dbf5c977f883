"""List prices of models in US dollars per million tokens, for limits on cost.

As the providers listed them at the time of writing; prices change, and
`Limits(price=…)` overrides this table.
https://platform.openai.com/docs/pricing, https://platform.claude.com/docs/en/about-claude/pricing
"""

from collections.abc import Mapping
from types import MappingProxyType

from treadle.domain.usage import Price
from treadle.models.version import without_date

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "gpt-5": Price(1.25, 10.0, 0.125),
        "gpt-5-mini": Price(0.25, 2.0, 0.025),
        "gpt-5-nano": Price(0.05, 0.4, 0.005),
        "gpt-4.1": Price(2.0, 8.0, 0.5),
        "gpt-4.1-mini": Price(0.4, 1.6, 0.1),
        "gpt-4.1-nano": Price(0.1, 0.4, 0.025),
        "gpt-4o": Price(2.5, 10.0, 1.25),
        "gpt-4o-mini": Price(0.15, 0.6, 0.075),
        "o3": Price(2.0, 8.0, 0.5),
        "o4-mini": Price(1.1, 4.4, 0.275),
        "claude-opus-4-5": Price(5.0, 25.0, 0.5, 6.25),
        "claude-opus-4-1": Price(15.0, 75.0, 1.5, 18.75),
        "claude-opus-4": Price(15.0, 75.0, 1.5, 18.75),
        "claude-sonnet-4-5": Price(3.0, 15.0, 0.3, 3.75),
        "claude-sonnet-4": Price(3.0, 15.0, 0.3, 3.75),
        "claude-haiku-4-5": Price(1.0, 5.0, 0.1, 1.25),
    }
)
"""Prices by the name of the model, without the date of its version."""


def price_of(model: str, prices: Mapping[str, Price] = PRICES) -> Price | None:
    """Returns the price of a model or of a dated version of it (`gpt-5-2025-08-07`)."""
    price = prices.get(model)
    return price if price is not None else prices.get(without_date(model))
