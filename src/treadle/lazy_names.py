"""Public names of a package that are imported when they are first named.

Their modules, or libraries below them, are slow to import, or are in an extra.
"""

import sys
from collections.abc import Mapping
from importlib import import_module


def lazy_name(package: str, modules: Mapping[str, str], name: str) -> object:
    """Returns what `name` is in a package, and puts it there.

    `modules` are the full names of the modules that have the names; one that has another name there
    is `module:name`. Raises `AttributeError` for a name that is not in `modules`.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, original = modules[name].partition(":")
    value = getattr(import_module(module), original or name)
    setattr(sys.modules[package], name, value)
    return value
