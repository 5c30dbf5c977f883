"""Intents: which declared tool each clause of a question asks for, and with which arguments.

A tool is known by its name, its description and the names of its parameters, never by one fixed
name, so the demo model works with whatever tools an agent declares.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from treadle.domain.schema import JsonSchema, ToolSchema
from treadle.testing.simulator.brain.announcement import speaking_parameter
from treadle.testing.simulator.brain.arguments import (
    as_list,
    kind_of,
    properties,
    required,
    resolve,
)
from treadle.testing.simulator.brain.extraction import (
    bare_place,
    expression,
    extractor,
    number,
    place,
    query,
    quoted,
)

MAX_QUESTION = 20_000
MAX_CLAUSES = 64
MAX_CONTINUATION = 6

_CLAUSE_END = re.compile(
    r"[?!;\n]+|\.(?=\s|$)|,\s+(?!\s*(?-i:[A-Z]{2})\b)(?:and\s+|then\s+|also\s+)*"
    r"|\s+and\s+(?:then\s+|also\s+)?(?!\d)|(?<!\d)\s+and\s+|\s+(?:then|also)\s+",
    re.IGNORECASE,
)
_PAIR = re.compile(r"\b(?:sum|product|between)\b[^,;.?!]*?\band\b", re.IGNORECASE)
_FOLLOW_UP = re.compile(r"^\s*(?:and|what about|how about)\b", re.IGNORECASE)
_DULL_WORDS = re.compile(
    r"(?:get|set|do|run|the|an?|current|fetch|call|make|my|of|to|in|tool)$", re.IGNORECASE
)
_NEGATION = re.compile(r"\b(?:no|not|don't|without|off|disable\w*)\b", re.IGNORECASE)


class Topic(Struct, frozen=True):
    """A subject: the pattern that tools about it match, and the clauses that ask for it."""

    tool: re.Pattern[str]
    clause: re.Pattern[str]


class Intent(Struct, frozen=True):
    """A call that a clause asks for; `missing` names required parameters it does not tell."""

    tool: ToolSchema
    arguments: dict[str, object]
    missing: tuple[str, ...] = ()


def _topic(tool: str, clause: str) -> Topic:
    return Topic(re.compile(tool, re.IGNORECASE), re.compile(clause, re.IGNORECASE))


TOPICS = (
    _topic(
        r"weather|forecast|temperature|climate",
        r"weather|forecast|temperature|\brain|\bsnow|sunny|windy|how (?:hot|cold|warm)|degrees",
    ),
    _topic(
        r"\btime\b|clock|time ?zone|\bdate\b",
        r"\btime\b(?! out)|clock|what day|\bdate\b",
    ),
    _topic(
        r"(?=.*\b(?:list|show|ls|dir))(?=.*(?:file|director|folder))",
        r"\b(?:list|show|which|what|see|display|all)\b.*\b(?:files|director\w+|folders?)\b|^\s*ls\b",
    ),
    _topic(
        r"(?=.*\b(?:read|open|cat|load|show|get))(?=.*(?:file|path|document))",
        r"\b(?:read|open|show|cat|print|display|contents? of|what(?:'s| is) in|say)\b",
    ),
    _topic(
        r"search|look ?up|find|google|query|wait|sleep|delay|slow",
        r"\b(?:search\w*|look(?:ing)? (?:up|for)|find|google|research|wait|sleep|pause|slow\w*)\b",
    ),
)
_CALCULATION = re.compile(r"calc|\bmath|\beval|arithmetic|comput|expression|formula", re.IGNORECASE)


def intents(question: str, tools: Sequence[ToolSchema], last: str | None = None) -> list[Intent]:
    """Returns the calls that `question` asks for, in its order.

    `last` names the tool of the latest call before: "and in London?" asks for it again.
    """
    question = question[:MAX_QUESTION]
    previous = next((tool for tool in tools if tool.name == last), None)
    if not _FOLLOW_UP.search(question):
        previous = None
    found: list[Intent] = []
    for clause in clauses(question):
        intent = _intent(clause, question, tools) or _continued(clause, previous)
        if intent is not None:
            found.append(intent)
            previous = intent.tool
    return found


def clauses(question: str) -> list[str]:
    """Splits a question where one wish ends and the next begins."""
    # An "and" between two numbers that belong together is no such place.
    joined = _PAIR.sub(lambda match: match[0][:-3] + "\0", question)
    parts = (part.replace("\0", "and").strip(" ,") for part in _CLAUSE_END.split(joined))
    return [part for part in parts if part][:MAX_CLAUSES]


def fill_from(
    tool: ToolSchema, clause: str, context: str = ""
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Fills a tool's parameters from `clause`, required ones also from `context`.

    Returns the arguments and the names of the required parameters that neither tells, but for the
    one that speaks to the user, of which the clause knows nothing.
    """
    speaking = speaking_parameter(tool)
    needed = [name for name in required(tool.parameters) if name != speaking]
    arguments: dict[str, object] = {}
    for name, schema in properties(tool.parameters).items():
        if name == speaking:
            continue
        found, value = _value(name, schema, tool.parameters, clause, needed=name in needed)
        if not found and name in needed and context:
            found, value = _value(name, schema, tool.parameters, context, needed=True)
        if found:
            arguments[name] = value
    return arguments, tuple(name for name in needed if name not in arguments)


def _intent(clause: str, question: str, tools: Sequence[ToolSchema]) -> Intent | None:
    ranked = sorted(((_score(tool, clause), tool) for tool in tools), key=lambda pair: -pair[0])
    candidates = [tool for score, tool in ranked if score > 0]
    filled = (Intent(tool, *fill_from(tool, clause, question)) for tool in candidates)
    tried = list(filled)
    return next((i for i in tried if not i.missing), tried[0] if tried else None)


def _continued(clause: str, previous: ToolSchema | None) -> Intent | None:
    if previous is None or len(clause.split()) > MAX_CONTINUATION:
        return None
    arguments, missing = fill_from(previous, clause)
    if missing:
        arguments, missing = fill_from(previous, f"in {bare_place(clause) or ''}")
    told = any(extractor(name) is not None and name in arguments for name in arguments)
    return Intent(previous, arguments) if told and not missing else None


def _score(tool: ToolSchema, clause: str) -> int:
    name = words_of(tool.name)
    if re.search(rf"\b{re.escape(tool.name)}\b", clause):
        return 8
    return max(_topic_score(tool, name, clause), _name_score(name, clause))


def _topic_score(tool: ToolSchema, name: str, clause: str) -> int:
    if expression(clause) is not None:
        parameters = " ".join(properties(tool.parameters))
        return 5 if _CALCULATION.search(f"{name} {parameters}") else 0
    described = f"{name} {tool.description}"
    scores = [
        4 if topic.tool.search(name) else 1
        for topic in TOPICS
        if topic.clause.search(clause) and topic.tool.search(described)
    ]
    return max(scores, default=0)


def _name_score(name: str, clause: str) -> int:
    words = [word for word in name.split() if not _DULL_WORDS.match(word)]
    stems = [re.escape(word[: max(4, len(word) - 2)]) for word in words]
    return 3 if words and all(re.search(rf"\b{s}", clause, re.IGNORECASE) for s in stems) else 0


def words_of(name: str) -> str:
    """Writes an identifier as words: `getWeather` and `get_weather` as "get weather"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name)
    return spaced.lower().strip()


def _value(
    name: str, schema: JsonSchema, root: JsonSchema, clause: str, *, needed: bool
) -> tuple[bool, object]:
    """Whether the clause tells a value for the parameter, and the value."""
    shape = resolve(schema, root)
    extract = extractor(name)
    if extract is not None and (found := extract(clause)) is not None:
        return True, _typed(found, shape)
    if not needed:
        return False, None
    for value in _fixed(schema, shape, clause):
        return True, value
    if extract is not None and extract is not query:
        return False, None
    found = _by_type(kind_of(shape), clause)
    return found is not None, found


def _fixed(schema: JsonSchema, shape: JsonSchema, clause: str) -> Iterator[object]:
    """Values that the schema itself proposes, the best first."""
    for source in (schema, shape):
        for key in ("const", "default"):
            if key in source:
                yield source[key]
    if choices := as_list(shape.get("enum")):
        lowered = clause.lower()
        yield from (choice for choice in choices if str(choice).lower() in lowered)
        yield choices[0]
    if {"type": "null"} in as_list(schema.get("anyOf")):
        yield None


def _by_type(kind: str, clause: str) -> object:
    match kind:
        case "integer":
            found = number(clause)
            return None if found is None else int(found)
        case "number":
            return number(clause)
        case "boolean":
            return not _NEGATION.search(clause)
        case "array":
            found = quoted(clause) or query(clause)
            return [found] if found else None
        case "object":
            return None
        case _:
            return quoted(clause) or query(clause) or place(clause)


def _typed(found: str | float, shape: JsonSchema) -> object:
    kind = kind_of(shape)
    if kind == "integer" and isinstance(found, float):
        return int(found)
    if kind == "array":
        return [found]
    return str(found) if kind == "string" else found
