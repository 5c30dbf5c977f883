"""Short campaigns; `make chaos`, `make chaos-inside` and `make fuzz` run longer ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from chaos.fuzz import fuzz
from chaos.points import POINTS

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parent.parent


def test_every_commit_point_is_there() -> None:
    for name, point in POINTS.items():
        assert hasattr(point.owner, point.attribute), name


def figures_of(*arguments: str, seconds: float = 55) -> dict[str, str]:
    """Returns what a campaign without findings has counted."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        cwd=ROOT,
        timeout=seconds,
        check=False,
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed + done.stderr.decode()
    figures = dict(line.rsplit(maxsplit=1) for line in printed.splitlines()[1:-1])
    assert (figures["losses"], figures["duplicates"], figures["wrong"]) == ("0", "0", "0")
    return figures


def test_nothing_is_lost_or_doubled_when_the_process_is_killed() -> None:
    figures_of("chaos", "6", "--seed", "7")


def test_a_server_loses_nothing_and_stays_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos.soak", "8", "--seed", "7", "--settle", "0.2"],
        capture_output=True,
        cwd=ROOT,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_nothing_is_lost_or_doubled_when_parts_of_the_process_fail() -> None:
    figures = figures_of("chaos.inside", "4", "--seed", "7")
    for attack in ("append", "cancelled caller", "model", "reader pauses"):
        assert int(figures[attack]) > 0, attack


@pytest.mark.needs("postgres")
def test_nodes_that_are_killed_and_cut_off_lose_and_double_nothing() -> None:
    arguments = ("2", "--seed", "7", "--threads", "8", "--seconds", "0.02", "--kinds", "kill,cut")
    figures = figures_of("chaos.cluster", *arguments)
    assert int(figures["runs"]) > 8


@pytest.mark.needs("postgres")
@pytest.mark.timeout(170)  # seven processes start, one after the other
def test_nodes_that_are_replaced_by_a_newer_version_cut_lose_and_double_nothing() -> None:
    options = ("--threads", "5", "--seconds", "0.02", "--kinds", "deploy", "--real-heartbeat")
    figures = figures_of("chaos.cluster", "1", "--seed", "7", *options, seconds=160)
    assert int(figures["runs"]) > 5
    assert int(figures["pins"]) > 0
    assert figures["asked for again"] == "0"


def test_a_campaign_refuses_a_folder_with_the_evidence_of_another(tmp_path: Path) -> None:
    (tmp_path / "Heard.log").touch()
    done = subprocess.run(
        [sys.executable, "-m", "chaos.cluster", "0", "--keep", str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        timeout=55,
        check=False,
    )
    assert done.returncode == 2
    assert b"is not an empty folder" in done.stderr


def test_mutated_streams_raise_only_errors_of_the_tree_however_they_are_cut() -> None:
    tried, found = fuzz(7, 40, most=1_000)
    assert not found
    assert sum(tried.values()) == 1_000
