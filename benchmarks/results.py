"""The results of a run as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cores import machine
from benchmarks.row import Row

PATH = Path(__file__).resolve().parent / "results.json"


def write_results(rows: Sequence[Row]) -> None:
    """Writes benchmarks/results.json."""
    document = {"machine": machine(), "metrics": [_metric(row) for row in rows]}
    PATH.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _metric(row: Row) -> dict[str, object]:
    metric: dict[str, object] = {
        "metric": row.metric,
        "value": _rounded(row.figures.get("treadle")),
        "unit": row.unit,
        "target": ", ".join(target.says for target in row.targets),
        "reached": row.reached,
        "judged": [_rounded(target.value) for target in row.targets],
        "parties": {party: _rounded(value) for party, value in row.figures.items()},
        "ratio": row.ratio,
    }
    return metric | ({"failure": row.failure} if row.failure else {})


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
