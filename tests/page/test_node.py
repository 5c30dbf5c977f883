"""The modules of the page without a browser: in node, by its own test runner."""

import subprocess
from pathlib import Path

import pytest
from tests.families import node

pytestmark = [pytest.mark.real_clock, pytest.mark.needs("node")]

FOLDER = Path(__file__).parent / "js"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_module(path: Path) -> None:
    command = [str(node()), "--test", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "# pass 0" not in ended.stdout
