"""A short campaign of kills; `make chaos` runs longer ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from chaos.points import POINTS

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parent.parent


def test_every_commit_point_is_there() -> None:
    for name, point in POINTS.items():
        assert hasattr(point.owner, point.attribute), name


def test_nothing_is_lost_or_doubled_when_the_process_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "6", "--seed", "7"],
        capture_output=True,
        cwd=ROOT,
        timeout=55,
        check=False,
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed + done.stderr.decode()
    figures = dict(line.rsplit(maxsplit=1) for line in printed.splitlines()[1:-1])
    assert (figures["losses"], figures["duplicates"], figures["wrong"]) == ("0", "0", "0")
