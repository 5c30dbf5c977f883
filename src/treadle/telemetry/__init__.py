"""OpenTelemetry spans and metrics, built from the events of threads.

Needs the extra `treadle[otel]`; without it, naming `Telemetry` raises `ConfigurationError`.
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

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
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
