"""A switch that keeps tests from calling real models."""

from collections.abc import Generator
from contextlib import contextmanager

from treadle.models import network


@contextmanager
def forbid_network(*, forbidden: bool = True) -> Generator[None]:
    """While it is open, a model beyond this machine raises `NetworkForbidden`.

    Open it in a fixture of the whole suite; `forbid_network(forbidden=False)` lifts it inside.
    """
    before = network.forbid(forbidden=forbidden)
    try:
        yield
    finally:
        network.forbid(forbidden=before)
