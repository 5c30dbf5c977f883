"""The structured output as far as it has arrived, in its own types.

The JSON of a response is parsed while it grows. What is complete is validated, and what still
grows is put together: see `PartialOutput`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from typing_extensions import ReadOnly, TypeAliasType, is_typeddict

from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.failure import reraise_interrupt

T = TypeVar("T")

_GROWTH = 1.125
"""How much longer a text must be than the one parsed before, so that the whole cost is linear."""

_THOUGHT = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_ABSENT = object()


class Growing:
    """A text that grows, read again each time it is an eighth longer: at most 9 times its length.

    Short texts are read with each delta.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._due = 1.0

    def grow(self, delta: str) -> str | None:
        """Returns the text so far if it is time to read it."""
        self._parts.append(delta)
        self._length += len(delta)
        if self._length < self._due:
            return None
        self._due = self._length * _GROWTH
        text = "".join(self._parts)
        self._parts = [text]
        return text


def growing_json(text: str) -> object | None:
    """Returns the JSON object that has begun in a text, as far as it goes; None if there is none.

    Thoughts, fences and sentences before the object are ignored. An incomplete string is part of
    it, an incomplete number or literal is not.
    """
    if _THOUGHT.match(text):
        *_, rest = _THOUGHT_ENDS.split(text)
        text = "" if rest is text or len(rest) == len(text) else rest
    start = text.find("{")
    if start < 0:
        return None
    try:
        value: object = pydantic.from_json(text[start:], allow_partial="trailing-strings")
    except ValueError:  # it is not JSON, or more follows
        return None
    return value


class _NotYet(Exception):
    """Too little has arrived for a value."""


class PartialOutput:
    """Makes values of a type from JSON that still grows.

    - Pydantic models and dataclasses are instances: a field that has not arrived has its default,
      and a required one is None. Neither validators nor `__post_init__` run while an instance
      grows.
    - A `TypedDict` or a mapping has the keys, a list the elements that have arrived.
    - A `str` grows. Any other value appears when it is complete and valid.
    - Of a union of objects, one is built once what has arrived fits no other.
    """

    def __init__(self, hint: object) -> None:
        self._hint = hint
        self._adapters: dict[int, tuple[Any, pydantic.TypeAdapter[Any] | None]] = {}
        self._fields: dict[Any, tuple[_Field, ...]] = {}

    def build(self, value: object) -> object:
        """Returns the value; raises `ValueError` while there is too little of it."""
        try:
            return self._growing(self._hint, value)
        except _NotYet as error:
            raise ValueError("too little has arrived") from error
        except BaseException as error:  # a user's class, or JSON nested too deeply
            reraise_interrupt(error)
            raise ValueError("it cannot be built") from error

    def _growing(self, hint: Any, value: object) -> object:
        hint = _bare(hint)
        if hint is Any or hint is object:
            return value
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Union or origin is UnionType:
            return self._growing(self._option(arguments, value), value)
        if isinstance(value, str):
            if hint is str:
                return value
            raise _NotYet
        if isinstance(value, list):
            return self._list(hint, origin, arguments, cast("list[object]", value))
        if not isinstance(value, dict):
            raise _NotYet
        members = cast("dict[str, object]", value)
        if _is_object(hint):
            return self._object(hint, members)
        if (origin or hint) in _MAPPINGS:
            of = arguments[1] if arguments else Any
            if arguments and arguments[0] is not str:
                raise _NotYet
            return dict(self._members(members, lambda _: of))
        raise _NotYet

    def _members(
        self, members: dict[str, object], hint_of: Callable[[str], object]
    ) -> "Sequence[tuple[str, object]]":
        """Returns the members that can be shown: the last one grows, the others are complete."""
        found: list[tuple[str, object]] = []
        last = next(reversed(members), None)
        for key, value in members.items():
            hint = hint_of(key)
            if hint is _ABSENT:
                continue
            try:
                built = self._growing(hint, value) if key == last else self._whole(hint, value)
            except _NotYet:
                continue
            found.append((key, built))
        return found

    def _list(
        self, hint: Any, origin: Any, arguments: tuple[Any, ...], values: list[object]
    ) -> object:
        kind = origin or hint
        if kind is tuple:
            if len(arguments) != 2 or arguments[1] is not ...:  # `tuple[X, ...]`
                raise _NotYet
        elif kind not in _LISTS:
            raise _NotYet
        of = arguments[0] if arguments else Any
        built = [self._whole(of, value) for value in values[:-1]]
        with suppress(_NotYet):
            built += [self._growing(of, value) for value in values[-1:]]
        return _LISTS[kind](built)

    def _whole(self, hint: object, value: object) -> object:
        """Returns a value that is complete, validated."""
        adapter = self._adapter(hint)
        if adapter is None:
            raise _NotYet
        try:
            # As JSON: in JSON mode pydantic accepts dates as text and tuples as lists.
            return adapter.validate_json(msgspec.json.encode(value))
        except ValueError:
            raise _NotYet from None

    def _adapter(self, hint: Any) -> "pydantic.TypeAdapter[Any] | None":
        known = self._adapters.get(id(hint))
        if known is None or known[0] is not hint:
            try:
                adapter = cast("pydantic.TypeAdapter[Any] | None", pydantic.TypeAdapter(hint))
            except Exception:  # noqa: BLE001 - pydantic and user code raise many kinds
                adapter = None
            known = self._adapters[id(hint)] = (hint, adapter)
        return known[1]

    def _option(self, options: tuple[Any, ...], value: object) -> Any:
        """Returns the option of a union that a growing value is meant for."""
        bare: list[Any] = [_bare(one) for one in options if _bare(one) is not NoneType]
        if isinstance(value, str):
            found = [one for one in bare if one is str]
        elif isinstance(value, list):
            found = [one for one in bare if (get_origin(one) or one) in _LISTS]
        elif isinstance(value, dict):
            members = cast("dict[str, object]", value)
            found = [one for one in bare if _is_object(one) and self._fits(one, members)]
            found += [one for one in bare if (get_origin(one) or one) in _MAPPINGS]
        else:
            found = []
        if len(found) != 1:
            raise _NotYet
        return found[0]

    def _fits(self, hint: Any, members: dict[str, object]) -> bool:
        known = {field.key: field for field in self._fields_of(hint)}
        last = next(reversed(members), None)
        return members.keys() <= known.keys() and all(
            key == last or not _is_constant(known[key].hint) or self._is(known[key].hint, value)
            for key, value in members.items()
        )

    def _is(self, hint: object, value: object) -> bool:
        try:
            self._whole(hint, value)
        except _NotYet:
            return False
        return True

    def _object(self, hint: Any, members: dict[str, object]) -> object:
        fields = {field.key: field for field in self._fields_of(hint)}
        arrived = self._members(members, lambda key: fields[key].hint if key in fields else _ABSENT)
        values = {fields[key].name: value for key, value in arrived}
        if is_typeddict(hint):
            return values
        for field in fields.values():
            if field.name not in values:
                values[field.name] = field.default()
        if issubclass(hint, pydantic.BaseModel):
            return hint.model_construct({fields[key].name for key, _ in arrived}, **values)
        made = object.__new__(hint)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made

    def _fields_of(self, hint: Any) -> "tuple[_Field, ...]":
        known: tuple[_Field, ...] | None = self._fields.get(hint)
        if known is None:
            known = tuple(_fields_of(hint))
            self._fields[hint] = known
        return known


_LISTS: Mapping[Any, Callable[[list[object]], object]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
    AbstractSet: set,
}
_MAPPINGS: frozenset[Any] = frozenset({dict, Mapping})


class _Field(NamedTuple):
    """A field of a class: its key in JSON, its name and type, and what makes its default."""

    key: str
    name: str
    hint: object
    default: Callable[[], object]


def _none() -> None:
    return None


def _fields_of(hint: Any) -> "list[_Field]":
    if issubclass(hint, pydantic.BaseModel) or hasattr(hint, "__pydantic_fields__"):
        fields: Mapping[str, Any] = hint.__pydantic_fields__
        return [
            _Field(_key_of(name, info), name, _constrained(info), _pydantic_default(info))
            for name, info in fields.items()
        ]
    hints = get_type_hints(hint, include_extras=True)
    if is_typeddict(hint):
        return [_Field(name, name, one, _none) for name, one in hints.items()]
    return [
        _Field(one.name, one.name, hints[one.name], _dataclass_default(one))
        for one in dataclasses.fields(hint)
    ]


def _key_of(name: str, info: Any) -> str:
    alias: object = info.validation_alias
    return alias if isinstance(alias, str) else info.alias or name


def _constrained(info: Any) -> object:
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _pydantic_default(info: Any) -> Callable[[], object]:
    return _none if info.is_required() else lambda: _default_of(info)


def _default_of(info: Any) -> object:
    try:
        return info.get_default(call_default_factory=True, validated_data={})
    except (TypeError, KeyError):  # a factory that reads the other fields
        return None


def _dataclass_default(field: "dataclasses.Field[Any]") -> Callable[[], object]:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return (lambda: field.default) if field.default is not dataclasses.MISSING else _none


def _is_object(hint: Any) -> bool:
    if is_typeddict(hint):
        return True
    if not isinstance(hint, type):
        return False
    kind: Any = hint
    if issubclass(kind, pydantic.BaseModel):
        return not issubclass(kind, pydantic.RootModel)
    return dataclasses.is_dataclass(kind)


def _is_constant(hint: object) -> bool:
    return get_origin(_bare(hint)) is Literal


def _bare(hint: Any) -> Any:
    """Returns a type without annotations, qualifiers and names."""
    while True:
        if get_origin(hint) in {Annotated, Required, NotRequired, ReadOnly}:
            hint = get_args(hint)[0]
        elif isinstance(hint, TypeAliasType):
            hint = hint.__value__
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        else:
            return hint
