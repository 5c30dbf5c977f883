"""List prices of models in US dollars per million tokens, for limits on cost."""

from collections.abc import Mapping
from types import MappingProxyType

from treadle.domain.usage import Price
from treadle.models.model_data import all_models
from treadle.models.version import without_date

PRICES: Mapping[str, Price] = MappingProxyType(
    {without_date(model.name): model.price for model in all_models() if model.price is not None}
)
"""Prices by the name of the model, without the date of its version; see `model_data`."""


def price_of(model: str, prices: Mapping[str, Price] = PRICES) -> Price | None:
    """Returns the price of a model or of a dated version of it (`gpt-5-2025-08-07`)."""
    price = prices.get(model)
    return price if price is not None else prices.get(without_date(model))
