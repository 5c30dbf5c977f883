"""Compares requests with recorded ones, and describes the differences; pure."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import cast

import msgspec

# The ids that treadle makes are new in each run, so only their positions are compared.
_GENERATED = re.compile(r"\b(thread|run|msg|rs|fc|fco|call|evt)_[0-9a-hjkmnp-tv-z]{26}\b")
_CACHE_KEY = "prompt_cache_key"
_SHOWN = 120
_CONTEXT = 20
_MAX_DIFFERENCES = 4
_ABSENT = object()


def canonical(body: object) -> object:
    """Returns decoded JSON with the ids that treadle made replaced by their order of appearance.

    The key of the prompt cache is left out: it is made of an id, and changes no response.
    """
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"{found[1]}_{len(names) + 1}")

    def walk(value: object) -> object:
        if isinstance(value, str):
            return _GENERATED.sub(name, value)
        if isinstance(value, list):
            return [walk(entry) for entry in cast("list[object]", value)]
        if isinstance(value, dict):
            return {key: walk(entry) for key, entry in cast("dict[str, object]", value).items()}
        return value

    if isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        body = {key: value for key, value in fields.items() if key != _CACHE_KEY}
    return walk(body)


def differences(recorded: object, asked: object) -> list[str]:
    """Returns the first few places where `asked` differs from `recorded`, both decoded JSON."""
    return list(islice(_differences(recorded, asked, ""), _MAX_DIFFERENCES))


def _differences(recorded: object, asked: object, place: str) -> Iterator[str]:
    if recorded == asked:
        return
    before, after = _entries(recorded), _entries(asked)
    if before is None or after is None or type(recorded) is not type(asked):
        yield _difference(recorded, asked, place.lstrip(".") or "the body")
        return
    for key in before | after:
        yield from _differences(before.get(key, _ABSENT), after.get(key, _ABSENT), place + key)


def _entries(value: object) -> dict[str, object] | None:
    if isinstance(value, dict):
        return {f".{key}": entry for key, entry in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return {f"[{n}]": entry for n, entry in enumerate(cast("list[object]", value))}
    return None


def _difference(recorded: object, asked: object, place: str) -> str:
    start = 0
    if isinstance(recorded, str) and isinstance(asked, str):
        pairs = zip(recorded, asked, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(recorded), len(asked)))
        start = max(0, same - _CONTEXT)
    return f"{place}: recorded {_shown(recorded, start)}, asked {_shown(asked, start)}"


def _shown(value: object, start: int) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, str):
        value = ("…" if start else "") + value[start:]
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
