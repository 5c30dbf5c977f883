"""What the demo model says when no tool can help: honest, and about what it can do."""

import re
from collections.abc import Iterable, Sequence

from treadle.domain.items import Message
from treadle.domain.schema import ToolSchema
from treadle.testing.simulator.brain.announcement import speaking_parameter
from treadle.testing.simulator.brain.arguments import properties, required
from treadle.testing.simulator.brain.intents import Intent
from treadle.testing.simulator.request import Entry

MAX_ECHO = 120
MAX_TOOLS = 12
SELF = (
    "I am treadle's small built-in demo model: a deterministic program, not a language model. "
    "I find simple wishes in your words and call the declared tools for them."
)
_NAME = re.compile(r"\bmy name is\s+([^\W\d_][\w'\u2019-]{0,40})", re.IGNORECASE)
_ASKS_NAME = re.compile(r"what(?:'s| is) my name|who am i|remember my name", re.IGNORECASE)
_GREETING = re.compile(
    r"^\W*(?:hi|hello|hey|hallo|hej|ciao|good (?:morning|evening|day|afternoon))\b", re.IGNORECASE
)
_THANKS = re.compile(r"\b(?:thanks|thank you|thx|cheers)\b", re.IGNORECASE)
_IDENTITY = re.compile(
    r"who are you|what are you|what can you do|\bhelp\b|your name|how do you work", re.IGNORECASE
)
_FAREWELL = re.compile(r"^\W*(?:bye|goodbye|see you|good night)\b", re.IGNORECASE)


def missing_arguments(intents: Iterable[Intent]) -> str:
    """Says which parameters of a tool the question left open."""
    lines = [
        f"To call `{intent.tool.name}` I need {_listed(intent.missing)}." for intent in intents
    ]
    return " ".join(lines)


def small_talk(question: str, history: Sequence[Entry], tools: Sequence[ToolSchema]) -> str:
    """Answers what asks for no tool."""
    if _ASKS_NAME.search(question):
        return _recalled_name(history)
    if match := _NAME.search(question):
        return f"Nice to meet you, {match[1]}. I will find your name in this thread's history."
    if _THANKS.search(question):
        return "You are welcome."
    if _FAREWELL.search(question):
        return "Goodbye. The thread stays in its journal; we can go on at any time."
    if _IDENTITY.search(question):
        return f"{SELF} {abilities(tools)}"
    if _GREETING.search(question):
        return f"Hello! {SELF} {abilities(tools)}"
    return f"You said: “{_echo(question)}” {SELF} That one is beyond me. {abilities(tools)}"


def abilities(tools: Sequence[ToolSchema]) -> str:
    """Says what the declared tools let the model do."""
    if not tools:
        return "This agent declares no tools, so I can only talk."
    lines = [f"- {_signature(tool)}: {_summary(tool)}" for tool in tools[:MAX_TOOLS]]
    more = [f"- and {len(tools) - MAX_TOOLS} more"] if len(tools) > MAX_TOOLS else []
    return "\n".join(["With the tools of this agent I can call:", *lines, *more])


def _signature(tool: ToolSchema) -> str:
    needed, speaking = required(tool.parameters), speaking_parameter(tool)
    declared = [name for name in properties(tool.parameters) if name != speaking]
    names = [name if name in needed else f"{name}?" for name in declared]
    return f"`{tool.name}({', '.join(names)})`"


def _summary(tool: ToolSchema) -> str:
    first = tool.description.strip().partition("\n")[0]
    return first[:MAX_ECHO] or "no description"


def _recalled_name(history: Sequence[Entry]) -> str:
    users = (e.text for e in history if isinstance(e, Message) and e.role == "user")
    names = [match[1] for text in users for match in _NAME.finditer(text)]
    if not names:
        return "You have not told me your name in this thread."
    return f"Your name is {names[-1]}: you told me earlier in this thread."


def _echo(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_ECHO else f"{flat[:MAX_ECHO].rstrip()}…"


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
