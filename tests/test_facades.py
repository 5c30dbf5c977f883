"""Public names live in the facades, are what they seem, and are all that the documentation uses."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
FACADES = [
    "treadle",
    "treadle.client",
    "treadle.errors",
    "treadle.jobs",
    "treadle.logging",
    "treadle.mcp",
    "treadle.memory",
    "treadle.models",
    "treadle.server",
    "treadle.sync",
    "treadle.telemetry",
    "treadle.testing",
]
CODE = [
    *(
        pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
        for page in sorted(
            [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
        )
        for number, code in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        )
    ),
    *(
        pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))
        for path in sorted(ROOT.glob("examples/**/*.py"))
    ),
]

SUBMODULES = """
import pkgutil, sys
from importlib import import_module
from types import ModuleType
import treadle

def names(facade):
    module = import_module(facade)
    exported = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    return {(facade, name): getattr(module, name) for name in exported}

def import_all():
    for found in pkgutil.walk_packages(treadle.__path__, "treadle."):
        import_module(found.name)
"""
NAMES_FIRST = """
before = {key: value for facade in sys.argv[1:] for key, value in names(facade).items()}
import_all()
for (facade, name), value in before.items():
    assert getattr(sys.modules[facade], name) is value, (facade, name)
"""
SUBMODULES_FIRST = """
import_all()
for facade in sys.argv[1:]:
    module = import_module(facade)
    for name in getattr(module, "__all__", ()):
        assert not isinstance(getattr(module, name), ModuleType), (facade, name)
"""
LIGHT = """
import sys
import treadle, treadle.jobs, treadle.memory, treadle.models, treadle.telemetry
heavy = {"aiohttp", "numpy", "opentelemetry", "pydantic", "sqlite3", "starlette"}
heavy.add("treadle.jobs.commander")
assert not heavy & set(sys.modules), heavy & set(sys.modules)
treadle.models.OpenAIChat
assert "treadle.models.openai" in sys.modules
"""


def exported(facade: ModuleType) -> set[str]:
    """The public names of a facade; one without `__all__` defines all its names itself."""
    listed = set(getattr(facade, "__all__", [name for name in vars(facade) if name[0] != "_"]))
    # `open` is public but not listed, because `import *` would shadow the builtin with it.
    return listed | {"open"} if facade.__name__ in {"treadle", "treadle.sync"} else listed


@pytest.mark.parametrize("name", FACADES)
def test_no_public_name_is_the_name_of_a_submodule(name: str) -> None:
    facade = importlib.import_module(name)
    submodules = {found.name for found in pkgutil.iter_modules(getattr(facade, "__path__", []))}
    assert not exported(facade) & submodules


@pytest.mark.real_clock
@pytest.mark.parametrize("order", [NAMES_FIRST, SUBMODULES_FIRST])
def test_no_submodule_takes_the_place_of_a_public_name(order: str) -> None:
    run(SUBMODULES + order, *FACADES)


@pytest.mark.real_clock
def test_facades_import_what_is_slow_when_it_is_first_named() -> None:
    run(LIGHT)


@pytest.mark.parametrize("name", FACADES)
def test_every_public_name_is_listed_and_exists(name: str) -> None:
    facade = importlib.import_module(name)
    assert exported(facade) <= set(dir(facade)) | set(getattr(facade, "__all__", ()))
    for each in exported(facade):
        assert getattr(facade, each) is not None


@pytest.mark.parametrize("name", [name for name in FACADES if name != "treadle.errors"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    facade = importlib.import_module(name)
    with pytest.raises(AttributeError, match="Comander"):
        _ = facade.Comander


@pytest.mark.parametrize("code", CODE)
def test_documentation_uses_public_names_only(code: str) -> None:
    assert list(private_uses(ast.parse(code))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from treadle.models.openai import OpenAIChat", ["treadle.models.openai"]),
        ("import treadle.loop.step", ["treadle.loop.step"]),
        ("import treadle as t\nt.loop.step", ["treadle.loop"]),
        ("from treadle.models import Modell", ["treadle.models.Modell"]),
        ("from treadle import models\nmodels.openai.OpenAIChat", ["treadle.models.openai"]),
        ("import treadle\ntreadle.Agnet('demo')", ["treadle.Agnet"]),
        ("import treadle\ntreadle.errors.JobErrors", ["treadle.errors.JobErrors"]),
        ("import treadle.testing\ntreadle.testing.Call.name\ntreadle.Agent.run", []),
        ("from treadle.logging import RunFilter", []),
        ("from treadle.logging import InRun", ["treadle.logging.InRun"]),
    ],
)
def test_a_private_use_is_found(code: str, found: list[str]) -> None:
    assert list(private_uses(ast.parse(code))) == found


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Yields what a program uses of treadle without it being a public name."""
    modules: dict[str, str] = {}  # names that the program has bound to facades
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] == "treadle":
                        if alias.name not in FACADES:
                            yield alias.name
                        modules[alias.asname or "treadle"] = (
                            alias.name if alias.asname else "treadle"
                        )
            case ast.ImportFrom(module=str(module), names=names) if (
                module.partition(".")[0] == "treadle"
            ):
                for alias in names:
                    path = f"{module}.{alias.name}"
                    if path in FACADES:
                        modules[alias.asname or alias.name] = path
                    elif module not in FACADES:
                        yield module
                    elif not is_public(module, alias.name):
                        yield path
            case _:
                pass
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = module_of(node.value, modules)
            path = f"{module}.{node.attr}"
            if module and path not in FACADES and not is_public(module, node.attr):
                yield path


def module_of(node: ast.expr, modules: dict[str, str]) -> str:
    """Returns the facade that an expression such as `treadle.testing` is, or an empty text."""
    match node:
        case ast.Name(id=name):
            return modules.get(name, "")
        case ast.Attribute(value=value, attr=attr):
            path = f"{module_of(value, modules)}.{attr}"
            return path if path in FACADES else ""
        case _:
            return ""


def is_public(module: str, name: str) -> bool:
    facade = importlib.import_module(module)
    return name in exported(facade) and hasattr(facade, name)


def run(code: str, *arguments: str) -> None:
    """Runs a program in a fresh interpreter, which must end without an error."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=False, timeout=50
    )
    assert not done.returncode, done.stderr.decode()


def test_the_reference_documents_every_public_name() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    documented = set(re.findall(r"^::: (treadle[\w.]*)$", pages, re.MULTILINE))
    names = {
        f"{facade}.{name}": getattr(importlib.import_module(facade), name)
        for facade in FACADES
        for name in exported(importlib.import_module(facade))
    }
    assert documented <= {*names, "treadle.errors"}
    # A page may document a name under another facade, or a module as a whole.
    shown = {id(value) for path, value in names.items() if path in documented}
    shown |= {id(value) for path, value in names.items() if path.rpartition(".")[0] in documented}
    assert [path for path, value in names.items() if id(value) not in shown] == []
