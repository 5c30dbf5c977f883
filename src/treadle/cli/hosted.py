"""Calls of hosted tools, and the sources of a text, as lines for a terminal."""

from collections.abc import Sequence

from treadle.cli.plain_text import one_line
from treadle.domain.items import HostedCall, Message, OutputText, UrlCitation

_MOST = 10


def hosted_label(call: HostedCall) -> str:
    """Returns the name of the tool; of an MCP server, with the name of the server."""
    return one_line(f"{call.server}.{call.name}" if call.server else call.tool)


def sources_of(message: Message) -> Sequence[str]:
    """Returns a line for each page and file that a message cites, at most 10 and one for more."""
    found: dict[str, str] = {}
    for part in message.content:
        for one in part.annotations if isinstance(part, OutputText) else ():
            if isinstance(one, UrlCitation):
                found.setdefault(one.url, one_line(f"{one.title} {one.url}".strip()))
            elif name := one.filename or one.file_id:
                found.setdefault(name, one_line(name))
    lines = [f"[{number}] {line}" for number, line in enumerate(found.values(), 1)]
    more = len(lines) - _MOST
    return lines if more < 1 else [*lines[:_MOST], f"… and {more} more"]
