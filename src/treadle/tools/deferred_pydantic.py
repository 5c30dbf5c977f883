"""The names of pydantic that tools and outputs use.

pydantic is imported where one of them is used first: the first tool or output type of a program,
most often before its event loop runs. It is a third of what `import treadle` would take, and a
program without tools never needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        RootModel,
        TypeAdapter,
        ValidationError,
        create_model,
    )
    from pydantic.fields import FieldInfo
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import from_json, to_jsonable_python

__all__ = [
    "BaseModel",
    "ConfigDict",
    "Field",
    "FieldInfo",
    "GenerateJsonSchema",
    "RootModel",
    "TypeAdapter",
    "ValidationError",
    "create_model",
    "from_json",
    "to_jsonable_python",
]

_PLACES = {
    "FieldInfo": "pydantic.fields",
    "GenerateJsonSchema": "pydantic.json_schema",
    "from_json": "pydantic_core",
    "to_jsonable_python": "pydantic_core",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(name)
    value = globals()[name] = getattr(import_module(_PLACES.get(name, "pydantic")), name)
    return value
