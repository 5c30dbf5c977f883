"""OpenTelemetry spans and metrics, built from the events of threads.

Needs the extra `treadle[otel]`; without it, naming `Telemetry` raises `ConfigurationError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.telemetry.otel import Telemetry

__all__ = [
    "Telemetry",
]

_MODULES = {
    "Telemetry": "treadle.telemetry.otel",
}


def __getattr__(name: str) -> object:
    # Imported when first named: OpenTelemetry is an optional dependency.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
