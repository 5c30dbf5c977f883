"""The public names of the package, most of which are imported when they are first named."""

import subprocess
import sys
from types import ModuleType

import pytest

import treadle.jobs

pytestmark = pytest.mark.real_clock

# The module of graphs brings in that of handlers, which is called as what it holds.
ALL = """
import treadle.jobs.graph
from treadle.jobs import *
from treadle.jobs import blocking as other, handler as same
assert blocking is other and handler is same
assert handler.__module__ == "treadle.jobs.handler", handler
assert blocking.__module__ == "treadle.jobs.blocking", blocking
"""

FEW = """
import sys
import treadle
assert "treadle.jobs.commander" not in sys.modules
from treadle.jobs import Commander
assert Commander.__module__ == "treadle.jobs.commander"
"""


@pytest.mark.parametrize("code", [ALL, FEW])
def test_names_are_imported_when_they_are_first_named(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode()


def test_every_public_name_is_listed_and_is_no_module() -> None:
    assert set(treadle.jobs.__all__) <= set(dir(treadle.jobs))
    for name in treadle.jobs.__all__:
        assert not isinstance(getattr(treadle.jobs, name), ModuleType), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Comander"):
        _ = treadle.jobs.Comander  # type: ignore[attr-defined]
