"""Calls of hosted tools in a response, in one form for people and for other providers.

https://platform.openai.com/docs/guides/tools,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools,
https://ai.google.dev/gemini-api/docs/tools
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from treadle.domain.items import Annotation, FileCitation, HostedCall, HostedStatus, UrlCitation
from treadle.models.wire.loose_json import fields_of, list_of, string_of

MAX_TEXT = 100_000
"""The most characters of arguments or of an output that are kept for people."""
MAX_SOURCES = 100
"""The most sources of a call that are kept for people."""
_MAX_URL = 4_096
_MAX_TITLE = 1_000

Object = Mapping[str, object]

_RESPONSES = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "mcp_call": "mcp",
}
_FAILED = {"failed", "incomplete"}


def responses_call(fields: Object) -> HostedCall | None:
    """Returns the call in an item of Responses, or None."""
    tool = _RESPONSES.get(string_of(fields.get("type")))
    if tool is None:
        return None
    arguments, output, sources = "", "", list[Annotation]()
    match tool:
        case "web_search":
            action = fields_of(fields.get("action"))
            arguments = _searched(action)
            sources = [url_source(one) for one in list_of(action.get("sources"))]
        case "file_search":
            arguments = _lines(list_of(fields.get("queries")))
            results = [fields_of(one) for one in list_of(fields.get("results"))]
            sources = [_file(one) for one in results]
            output = _lines(one.get("text") for one in results)
        case "code_interpreter":
            arguments = string_of(fields.get("code"))
            outputs = [fields_of(one) for one in list_of(fields.get("outputs"))]
            output = _lines(one.get("logs") for one in outputs)
        case _:
            arguments = string_of(fields.get("arguments"))
            output = string_of(fields.get("output"))
    error = _error(fields.get("error"))
    return bounded(
        HostedCall(
            tool=tool,
            call_id=string_of(fields.get("id")),
            status=_status(fields, error),
            arguments=arguments,
            name=string_of(fields.get("name")),
            server=string_of(fields.get("server_label")),
            output=output or error,
            sources=tuple(sources),
        )
    )


def url_source(value: object) -> UrlCitation:
    """Returns a page that was found, from any object with a URL and a title."""
    fields = fields_of(value)
    url = string_of(fields.get("url") or fields.get("uri"))
    return UrlCitation(url, string_of(fields.get("title")))


def bounded(call: HostedCall) -> HostedCall:
    """Returns a call whose texts and sources are not more than people read."""
    return msgspec.structs.replace(
        call,
        call_id=call.call_id[:_MAX_TITLE],
        name=call.name[:_MAX_TITLE],
        server=call.server[:_MAX_TITLE],
        arguments=_cut(call.arguments),
        output=_cut(call.output),
        sources=tuple(_sources(call.sources)),
    )


def _searched(action: Object) -> str:
    """Returns what a web search looked for: queries, a page, or a text in a page."""
    queries = list_of(action.get("queries")) or list_of(action.get("query"))
    parts = [action.get("pattern"), action.get("url")]
    return _lines(queries) or " ".join(text for part in parts if (text := string_of(part)))


def _file(fields: Object) -> FileCitation:
    return FileCitation(string_of(fields.get("file_id")), string_of(fields.get("filename")))


def _status(fields: Object, error: str) -> HostedStatus:
    status = string_of(fields.get("status"))
    if error or status in _FAILED:
        return "failed"
    # A call of an MCP server has no status in older responses.
    has_result = bool(status == "completed" or fields.get("output"))
    return "completed" if has_result else "in_progress"


def _error(value: object) -> str:
    fields = fields_of(value)
    if not fields:
        return string_of(value)
    said = string_of(fields.get("message")) or _lines(
        fields_of(part).get("text") for part in list_of(fields.get("content"))
    )
    return said or string_of(fields.get("type")) or "The call failed."


def _lines(texts: Iterable[object]) -> str:
    return "\n".join(text for one in texts if (text := string_of(one)))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}\n[{len(text) - MAX_TEXT} characters are left out here]"


def _sources(sources: Sequence[Annotation]) -> Iterable[Annotation]:
    """Yields each page and file once; a URL that is too long for a link is left out."""
    seen: set[str] = set()
    for one in sources:
        if isinstance(one, UrlCitation):
            key, is_short = one.url, 0 < len(one.url) <= _MAX_URL
            one = msgspec.structs.replace(one, title=one.title[:_MAX_TITLE])
        else:
            key = one.file_id or one.filename
            is_short = 0 < len(key) <= _MAX_TITLE and len(one.filename) <= _MAX_TITLE
        if is_short and key not in seen:
            seen.add(key)
            yield one
            if len(seen) == MAX_SOURCES:
                return
