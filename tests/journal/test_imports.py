"""A journal imports threads and events, but no agents, models or tools."""

import subprocess
import sys

import pytest

ALLOWED = tuple(f"treadle.{name}" for name in ("clock", "domain", "errors", "journal", "logging"))

CODE = """
import sys, treadle
# Importing the facade loads most of the package; what the journal needs is loaded again.
for name in [name for name in sys.modules if name.startswith("treadle.")]:
    del sys.modules[name]
import treadle.journal.{module}
print(*(name for name in sys.modules if name.startswith("treadle.")))
"""


@pytest.mark.parametrize("module", ["base", "memory", "sqlite"])
def test_a_journal_imports_no_agent(module: str) -> None:
    command = [sys.executable, "-c", CODE.format(module=module)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert f"treadle.journal.{module}" in loaded
    assert [name for name in loaded if not name.startswith(ALLOWED)] == []
