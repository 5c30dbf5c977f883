"""A switch that keeps tests from calling real models."""

from collections.abc import Generator
from contextlib import contextmanager

from treadle.models import network


@contextmanager
def forbid_network(*, forbidden: bool = True) -> Generator[None]:
    """Makes calls of models on other machines raise `NetworkForbidden` inside the block.

    Open it in a fixture of the whole suite; `forbid_network(forbidden=False)` allows them
    inside.
    """
    before = network.forbid(forbidden=forbidden)
    try:
        yield
    finally:
        network.forbid(forbidden=before)
