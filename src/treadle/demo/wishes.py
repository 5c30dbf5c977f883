"""Finds the tool calls that a message asks for, by patterns over the declared tools; pure."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from treadle.domain.schema import JsonSchema, ToolSchema
from treadle.tools.example import as_list, example, kind_of, properties, required, resolve

MAX_QUESTION = 20_000
MAX_CLAUSES = 64
MAX_FOLLOW_UP = 6
"""Words of a clause such as "and in Rome" that asks for the previous tool again."""


class Wish(NamedTuple):
    """A call that a message asks for; `missing` names the required parameters without a value."""

    tool: ToolSchema
    arguments: dict[str, object]
    missing: tuple[str, ...] = ()


class _Topic(NamedTuple):
    """The tools and the clauses of one subject, and the announcement of such a call."""

    tool: str
    clause: str
    announcement: str


_ARITHMETIC = r"\d\s*(?:[-+*/%^\u00d7\u00f7x]|\*\*|times|plus|minus|divided by)\s*[-(]?\s*\d"
_TOPICS = (
    _Topic(
        "weather|forecast|temperature",
        r"weather|forecast|temperature|\brain|\bsnow|sunny|how (?:hot|cold|warm)",
        "look up the weather in {}",
    ),
    _Topic("calc|math|eval|arithmetic", _ARITHMETIC, "work out {}"),
    _Topic(r"\btime\b|clock", r"\btime\b|clock|what day|\bdate\b", "look at the clock for {}"),
    _Topic("list.*file", r"\b(?:list|show|which|what|see)\b.*\bfiles\b", "list the files"),
    _Topic("read|open", r"\b(?:read|open|show|cat|print)\b", "read {}"),
    _Topic(
        "search|find|look",
        r"\b(?:search\w*|find|google|look(?:ing)? (?:up|for)|wait|slow\w*)\b",
        "search for {}",
    ),
)
_CLAUSE_END = re.compile(r"[?!;\n]+|\.(?=\s|$)|,\s+|\s+(?:and|then|also)\s+", re.IGNORECASE)
_CONNECTIVE = re.compile(r"^(?:(?:and|then|also|please)\b\s*)+", re.IGNORECASE)
_CONTINUES = re.compile(r"^\s*(?:and|what about|how about)\b", re.IGNORECASE)
_DULL = {"get", "set", "do", "run", "the", "a", "an", "current", "fetch", "make", "my", "of", "to"}
_QUOTED = re.compile("[\"“`']([^\"“”`']{1,200})[\"”`'](?!\\w)")
_AFTER = re.compile(r"\b(?:in|for|at|near|about|up|of|to|from)\s+(.+)$", re.IGNORECASE)
_PLACE = re.compile(r"^[^\W\d_][\w'\u2019. -]{1,39}$")
_CAPITALISED = re.compile(r"\b[A-Z]\w+(?:[ -][A-Z]\w+)*")
_TIME_WORDS = re.compile(
    r"[\s,]*\b(?:today|tomorrow|tonight|now|right now|currently|please|this week)\b.*",
    re.IGNORECASE,
)
_FILE = re.compile(r"[\w./-]*\w\.[A-Za-z]\w{0,7}\b|\b[A-Z]{2,}\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)\b", re.IGNORECASE)
_EXPRESSION = re.compile(r"[-+(]*\d[\d\s.()*/%+-]*")
_OPERATORS = (
    (r"multiplied by|times|\u00d7|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"divided by|\u00f7", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"to the power of|\^", "**"),
)


def find_wishes(question: str, tools: Sequence[ToolSchema], last: str = "") -> list[Wish]:
    """Returns the calls that `question` asks for, in its order.

    `last` names the tool that was called last before: "and in London?" asks for it again.
    """
    previous = next((tool for tool in tools if tool.name == last), None)
    if not _CONTINUES.search(question):
        previous = None
    found: list[Wish] = []
    before = ""  # the clause before, if it asked for no tool: "In Paris, how is the weather?"
    for part in _CLAUSE_END.split(question[:MAX_QUESTION])[:MAX_CLAUSES]:
        clause = _CONNECTIVE.sub("", part.strip(" ,"))
        wish = _wish(clause, tools) or (previous and _follow_up(clause, previous))
        if wish and wish.missing:
            wish = _filled(wish.tool, f"{clause} {before}")
        before = "" if wish else clause
        if wish:
            found.append(wish)
            previous = wish.tool
    return found


def force(tool: ToolSchema, question: str) -> Wish:
    """Returns a call of `tool` whatever the question is; example values stand for missing ones."""
    wish = _filled(tool, question[:MAX_QUESTION])
    declared = properties(tool.parameters)
    examples = {name: example(declared[name], tool.parameters, name=name) for name in wish.missing}
    return Wish(tool, {**wish.arguments, **examples})


def speaking_parameter(tool: ToolSchema) -> str:
    """Returns the parameter in which a call announces itself to the user, or ""."""
    for name, shape in properties(tool.parameters).items():
        if name == "to_user" or "sentence to the user" in str(shape.get("description", "")):
            return name
    return ""


def announced(wish: Wish) -> dict[str, object]:
    """Returns the arguments of a call, with its announcement first if the tool asks for one."""
    name = speaking_parameter(wish.tool)
    if not name:
        return wish.arguments
    subject = next((value for value in wish.arguments.values() if isinstance(value, str)), "that")
    topic = next((topic for topic in _TOPICS if _matches(topic.tool, wish.tool)), None)
    action = topic.announcement.format(subject[:60]) if topic else f"use {wish.tool.name}"
    return {name: f"Let me {action}…", **wish.arguments}


def _wish(clause: str, tools: Sequence[ToolSchema]) -> Wish | None:
    wanted = [_filled(tool, clause) for tool in tools if clause and _asks_for(clause, tool)]
    complete = [wish for wish in wanted if not wish.missing]
    return next(iter(complete or wanted), None)


def _follow_up(clause: str, tool: ToolSchema) -> Wish | None:
    words = re.sub(r"^(?:what|how) about\s+", "", clause, flags=re.IGNORECASE)
    if not _AFTER.search(words):
        words = f"in {words}"
    wish = _filled(tool, words)
    repeats = bool(clause) and len(clause.split()) <= MAX_FOLLOW_UP and bool(_place(words))
    return wish if repeats and wish.arguments and not wish.missing else None


def _asks_for(clause: str, tool: ToolSchema) -> bool:
    for topic in _TOPICS:
        if _matches(topic.tool, tool):
            return bool(re.search(topic.clause, clause, re.IGNORECASE))
    words = [word for word in _words(tool.name).split() if word not in _DULL]
    stems = (re.escape(word[: max(4, len(word) - 2)]) for word in words)
    return bool(words) and all(re.search(rf"\b{stem}", clause, re.IGNORECASE) for stem in stems)


def _matches(pattern: str, tool: ToolSchema) -> bool:
    return bool(re.search(pattern, _words(tool.name)))


def _words(name: str) -> str:
    """Returns an identifier as words: `getWeather` and `get_weather` as "get weather"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name).lower().strip()


def _filled(tool: ToolSchema, clause: str) -> Wish:
    speaking, needed = speaking_parameter(tool), required(tool.parameters)
    arguments: dict[str, object] = {}
    missing: list[str] = []
    for name, schema in properties(tool.parameters).items():
        if name == speaking:
            continue
        optional = name not in needed
        nullable = {"type": "null"} in as_list(schema.get("anyOf"))
        shape = resolve(schema, tool.parameters)
        value = _value(name, shape, clause, guess=not (optional or nullable))
        if value is not None or (nullable and not optional):
            arguments[name] = value
        elif not optional:
            missing.append(name)
    return Wish(tool, arguments, tuple(missing))


def _value(name: str, shape: JsonSchema, clause: str, *, guess: bool) -> object:
    """Returns what the clause says for a parameter, or None.

    Without `guess` the value must be recognised by the name of the parameter.
    """
    name = _words(name)
    if re.search(r"\b(?:city|location|place|country|timezone|zone|tz)\b", name):
        return _place(clause)
    if re.search("expression|formula|calculation", name):
        return _expression(clause)
    if re.search(r"\b(?:path|file|filename)\b", name):
        found = _QUOTED.search(clause) or _FILE.search(clause)
        return found and found[found.re.groups]
    if re.search(r"\bseconds?\b|\bduration\b", name):
        found = _SECONDS.search(clause)
        return float(found[1]) if found else None
    return _guess(shape, clause) if guess else None


def _guess(shape: JsonSchema, clause: str) -> object:
    if choices := as_list(shape.get("enum")):
        told = (choice for choice in choices if str(choice).lower() in clause.lower())
        return next(told, choices[0])
    number = _NUMBER.search(clause)
    match kind_of(shape):
        case "integer":
            return int(float(number[0])) if number else None
        case "number":
            return float(number[0]) if number else None
        case "boolean":
            return True
        case "array":
            return [_text(clause)]
        case "string":
            return _text(clause)
        case _:
            return None


def _text(clause: str) -> str:
    """Returns the text in quotes, or else what follows the first preposition, or the clause."""
    found = _QUOTED.search(clause) or _AFTER.search(clause)
    return (found[1] if found else clause).strip()


def _place(clause: str) -> str | None:
    """Returns the name that follows a preposition, or else the first capitalised name."""
    found = _AFTER.search(clause)
    if found:
        name = _TIME_WORDS.sub("", found[1]).strip()
        if _PLACE.fullmatch(name):
            return name.title() if name.islower() else name
    names = [name[0] for name in _CAPITALISED.finditer(clause) if name.start()]
    return names[0] if names else None


def _expression(clause: str) -> str | None:
    for words, symbol in _OPERATORS:
        clause = re.sub(words, symbol, clause, flags=re.IGNORECASE)
    found = [part[0].strip() for part in _EXPRESSION.finditer(clause)]
    return max((part for part in found if re.search(r"\d\D+\d", part)), key=len, default=None)
