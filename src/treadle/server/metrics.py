"""Counts of the server in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections import Counter

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
"""The upper bounds of the buckets of durations, in seconds."""


class Metrics:
    """Requests by route and status, and how long they took; streams are not among the durations."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Adds a request; `route` is the template of its path, `seconds` None for a stream."""
        self._requests[method, route, status] += 1
        if seconds is not None:
            self._seconds.setdefault(route, _Histogram()).add(seconds)

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """Returns all counts as text; `gauges` are further values: name → (description, value)."""
        lines = ["# HELP treadle_http_requests_total Requests."]
        lines += _kind("requests_total", "counter")
        for (method, route, status), number in sorted(self._requests.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"treadle_http_requests_total{{{labels}}} {number}")
        lines.append("# HELP treadle_http_request_seconds Time to answer, without streams.")
        lines += _kind("request_seconds", "histogram")
        for route, histogram in sorted(self._seconds.items()):
            lines += histogram.lines(route)
        for name, (description, value) in gauges.items():
            lines += [f"# HELP {name} {description}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _kind(name: str, kind: str) -> list[str]:
    return [f"# TYPE treadle_http_{name} {kind}"]


class _Histogram:
    def __init__(self) -> None:
        self._buckets = [0] * len(BOUNDS)
        self._count = 0
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._count += 1
        self._sum += seconds
        for number, bound in enumerate(BOUNDS):
            if seconds <= bound:
                self._buckets[number] += 1

    def lines(self, route: str) -> list[str]:
        name, label = "treadle_http_request_seconds", f'route="{route}"'
        buckets = [
            f'{name}_bucket{{{label},le="{bound:g}"}} {number}'
            for bound, number in zip(BOUNDS, self._buckets, strict=True)
        ]
        return [
            *buckets,
            f'{name}_bucket{{{label},le="+Inf"}} {self._count}',
            f"{name}_sum{{{label}}} {self._sum:.6f}",
            f"{name}_count{{{label}}} {self._count}",
        ]
