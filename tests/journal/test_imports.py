"""A journal knows threads and events, and nothing of agents, models or tools."""

import subprocess
import sys

import pytest

KNOWN = ("treadle.domain", "treadle.errors", "treadle.journal", "treadle.logging")


@pytest.mark.parametrize("module", ["memory", "sqlite"])
def test_a_journal_imports_no_agent(module: str) -> None:
    code = (
        "import sys, treadle;"
        "before = set(sys.modules);"
        "[sys.modules.pop(name) for name in before if name.startswith('treadle.')];"
        f"import treadle.journal.{module};"
        "print(*(name for name in sys.modules if name.startswith('treadle.')))"
    )
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert f"treadle.journal.{module}" in loaded
    assert [name for name in loaded if not name.startswith(KNOWN)] == []
