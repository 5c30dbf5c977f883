"""Announcements: what the demo model says to the user in the parameter that a tool has for it."""

import re
from collections.abc import Mapping

from treadle.domain.schema import ToolSchema
from treadle.testing.simulator.brain.arguments import kind_of, properties, required

MAX_SUBJECT = 60

_NAME = re.compile(r"to_?user", re.IGNORECASE)
_DESCRIPTION = re.compile(r"\bsentence to the user\b", re.IGNORECASE)

# What a tool is about, what to say of its subject, and what to say without one.
_SENTENCES = (
    ("weather|forecast|temperature|climate", "look up the weather in {}", "look at the weather"),
    ("calc|math|eval|arithmetic|comput|formula", "work out {}", "work that out"),
    ("time|clock|date", "look at the clock for {}", "look at the clock"),
    ("list.*file|list.*folder", "see which files there are", "see which files there are"),
    ("read|open|load", "read {}", "read that"),
    ("search|find|look", "search for {}", "search for that"),
)
_OTHERWISE = "look that up"


def speaking_parameter(tool: ToolSchema) -> str | None:
    """Returns the required parameter in which a call of `tool` speaks to the user, if any."""
    declared = properties(tool.parameters)
    for name in required(tool.parameters):
        description = str(declared[name].get("description", ""))
        if kind_of(declared[name]) == "string" and (
            _NAME.fullmatch(name) or _DESCRIPTION.search(description)
        ):
            return name
    return None


def announcement(tool: ToolSchema, arguments: Mapping[str, object]) -> str:
    """Says what a call is about to do, in one sentence."""
    subject = next((v for v in arguments.values() if isinstance(v, str)), "")
    for pattern, of_subject, without in _SENTENCES:
        if re.search(pattern, tool.name, re.IGNORECASE):
            known = 0 < len(subject) <= MAX_SUBJECT
            return f"Let me {of_subject.format(subject) if known else without}…"
    return f"Let me {_OTHERWISE}…"
