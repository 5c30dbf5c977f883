"""The windows of known models: the tokens that a request may have, as the providers count."""

from collections.abc import Mapping
from types import MappingProxyType

from treadle.models.model_data import all_models
from treadle.models.version import without_date

WINDOWS: Mapping[str, int] = MappingProxyType(
    {without_date(model.name): model.window for model in all_models()}
)
"""Windows by the name of the model, without the date of its version; see `model_data`."""


def window_of(model: str) -> int | None:
    """Returns the window of a model or of a dated version of it; None if it is not known."""
    window = WINDOWS.get(model)
    return window if window is not None else WINDOWS.get(without_date(model))
