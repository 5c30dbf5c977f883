"""Writes `docs/reference/signatures.md`: what is public, for readers who do not build the docs.

python -m tests.signatures            writes it
python -m tests.signatures --check    exits with 1 if it is out of date
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "signatures.md"
FACADES = (
    "treadle",
    "treadle.models",
    "treadle.memory",
    "treadle.jobs",
    "treadle.mcp",
    "treadle.server",
    "treadle.client",
    "treadle.errors",
    "treadle.logging",
    "treadle.telemetry",
    "treadle.testing",
)
WIDTH = 100
STORED = {"seq: int = 0", "at: float = 0.0"}
PRIVATE = {
    "AgentDefinition",
    "Catalog",
    "Connection",
    "Delegation",
    "FileStore",
    "Host",
    "Journal",
    "JournalReader",
    "Lifecycle",
    "Link",
    "Put",
    "Services",
    "StartQueue",
    "Step",
    "ThreadAccess",
    "Threads",
    "ThreadWriter",
    "Topic",
}
"""Types that only treadle has; a constructor that takes one is not for programs."""
HEAD = """\
# Signatures

Every public class, method and function with the beginning of its description; `help()` shows all of
it. The pages of the [reference](index.md) group and explain them. This page is written by
`python -m tests.signatures`, and can be read and searched without building the documentation.

Left out are constructors of what only treadle makes, `seq` and `at` of events that are stored, and
`treadle.sync`, whose classes have the methods of `treadle` without `await`.
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """Returns the text of the page."""
    parts = [HEAD.rstrip()]
    shown: dict[int, str] = {}
    for facade in FACADES:
        module = importlib.import_module(facade)
        parts += [f"\n## `{facade}`\n", "```py"]
        others: list[str] = []
        blocks: list[str] = []
        for name in names(module):
            value = getattr(module, name)
            if id(value) in shown:
                others.append(f"`{name}` (see `{shown[id(value)]}`)")
            elif inspect.isclass(value) or inspect.isfunction(value):
                shown[id(value)] = facade
                blocks.append("\n".join(definition(name, value)))
            else:
                others.append(f"`{name}`")
        parts += ["\n\n".join(blocks), "```"]
        if others:
            text = f"Aliases, constants and names of other modules: {', '.join(others)}."
            parts += ["", textwrap.fill(text, WIDTH, break_on_hyphens=False)]
    return "\n".join(parts) + "\n"


def names(module: ModuleType) -> list[str]:
    """The names that a facade exports; those of `treadle.errors` are the classes defined there."""
    exported = getattr(module, "__all__", None)
    if exported is not None:
        return sorted(exported, key=str.lower)
    return [n for n, v in vars(module).items() if inspect.isclass(v) and not n.startswith("_")]


def definition(name: str, value: type | object) -> Iterator[str]:
    """The lines of a class or of a function."""
    if not inspect.isclass(value):
        yield from function(tree(value), "", name)
        return
    bases = [b.__name__ for b in value.__bases__ if is_error(b)]
    yield f"class {name}{f'({bases[0]})' if bases else ''}:"
    yield from described(value.__doc__, "    ")
    members: dict[str, Function] = {}
    fields: list[str] = []
    for kind in reversed(value.__mro__):
        if not kind.__module__.startswith("treadle") or (is_error(kind) and kind is not value):
            continue
        for node in tree(kind).body:
            if isinstance(node, Function) and is_public(node):
                members[node.name] = node
            elif isinstance(node, ast.AnnAssign) and is_field(node):
                fields.append(f"    {ast.unparse(node)}")
    if "__init__" not in members:
        yield from (line for line in fields if line.strip() not in STORED)
    elif not is_made_by_users(members["__init__"]):
        del members["__init__"]
    for node in sorted(members.values(), key=lambda node: node.name != "__init__"):
        yield from function(node, "    ", node.name)


def is_made_by_users(constructor: Function) -> bool:
    """Whether the types of its parameters are public."""
    written = {n.id for n in ast.walk(constructor.args) if isinstance(n, ast.Name)}
    return not written & PRIVATE


def is_error(kind: type) -> bool:
    return issubclass(kind, Exception) and kind.__module__.startswith("treadle")


def is_public(node: Function) -> bool:
    hidden = {"overload", "setter"} & {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
    return not hidden and (node.name == "__init__" or not node.name.startswith("_"))


def is_field(node: ast.AnnAssign) -> bool:
    is_constant = "ClassVar" in ast.unparse(node.annotation)
    return isinstance(node.target, ast.Name) and node.target.id[0] != "_" and not is_constant


def function(node: ast.AST, indent: str, name: str) -> Iterator[str]:
    """The lines of a function: its parameters as they are written, and what it does."""
    assert isinstance(node, Function)
    if any(ast.unparse(d).endswith("property") for d in node.decorator_list):
        yield f"{indent}{name}: {ast.unparse(node.returns) if node.returns else 'object'}"
    else:
        keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        parameters = ast.unparse(node.args).removeprefix("self, ").removeprefix("cls, ")
        parameters = "" if parameters in {"self", "cls"} else parameters
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield from textwrap.wrap(
            f"{keyword} {name}({parameters}){result}",
            WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    yield from described(ast.get_docstring(node), f"{indent}    ")


def described(text: str | None, indent: str) -> Iterator[str]:
    paragraph = inspect.cleandoc(text or "").split("\n\n")[0].split("\n- ")[0]
    yield from textwrap.wrap(
        " ".join(paragraph.split()),
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


def tree(value: type | object) -> ast.ClassDef | Function:
    """The source of a class or a function, as a tree."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))  # type: ignore[arg-type]
    found = ast.parse(source).body[0]
    assert isinstance(found, ast.ClassDef | Function)
    return found


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("Public names changed: run `python -m tests.signatures`.")
