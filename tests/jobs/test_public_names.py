"""The public names of the package, most of which are imported when they are first named."""

import subprocess
import sys
from types import ModuleType

import pytest

import weft.jobs

pytestmark = pytest.mark.real_clock

# The module of graphs brings in that of handlers, which is called as what it holds.
ALL = """
import weft.jobs.graph
from weft.jobs import *
from weft.jobs import blocking as other, handler as same
assert blocking is other and handler is same
assert handler.__module__ == "weft.jobs.handler", handler
assert blocking.__module__ == "weft.jobs.blocking", blocking
"""

FEW = """
import sys
import weft
assert "weft.jobs.commander" not in sys.modules
from weft.jobs import Commander
assert Commander.__module__ == "weft.jobs.commander"
"""


@pytest.mark.parametrize("code", [ALL, FEW])
def test_names_are_imported_when_they_are_first_named(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode()


def test_every_public_name_is_listed_and_is_no_module() -> None:
    assert set(weft.jobs.__all__) <= set(dir(weft.jobs))
    for name in weft.jobs.__all__:
        assert not isinstance(getattr(weft.jobs, name), ModuleType), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Comander"):
        _ = weft.jobs.Comander  # type: ignore[attr-defined]
