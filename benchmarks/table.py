"""The table of a run."""

from collections.abc import Sequence

from benchmarks.row import Row

FIRST = ("treadle", "floor", "openai_sdk")


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as aligned text, a column for each party that has a figure."""
    parties = _parties(rows)
    head = ("metric", "unit", *parties, "ratio", "target", "reached")
    lines = [head, *(_cells(row, parties) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _parties(rows: Sequence[Row]) -> list[str]:
    known = {party for row in rows for party in row.figures}
    return [*(name for name in FIRST if name in known), *sorted(known - set(FIRST))]


def _cells(row: Row, parties: Sequence[str]) -> tuple[str, ...]:
    figures = (_number(row.figures.get(party)) for party in parties)
    target = ", ".join(target.says for target in row.targets)
    mark = {True: "✓", False: "✗", None: ""}[row.reached]
    return (row.metric, row.unit, *figures, row.failure or row.ratio, target, mark)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
