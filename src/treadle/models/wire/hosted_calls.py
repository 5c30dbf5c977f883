"""Calls of hosted tools in a response, in one form for people and for other providers.

https://platform.openai.com/docs/guides/tools,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools,
https://ai.google.dev/gemini-api/docs/tools
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from treadle.domain.items import (
    Annotation,
    FileCitation,
    HostedCall,
    HostedStatus,
    Item,
    ProviderItem,
    UrlCitation,
)
from treadle.models.wire.loose_json import (
    count_of,
    fields_of,
    joined_all,
    list_of,
    string_of,
)

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
_MESSAGES = {
    "code_execution": "code_interpreter",
    "bash_code_execution": "code_interpreter",
    "text_editor_code_execution": "code_interpreter",
}
_GEMINI = {
    "GOOGLE_SEARCH_WEB": "web_search",
    "GOOGLE_SEARCH_IMAGE": "web_search",
    "URL_CONTEXT": "web_fetch",
    "FILE_SEARCH": "file_search",
}
_SHOWN = ("query", "url", "code", "command")
"""The fields of the input of a call that people read as they are."""
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


def used_containers(items: Iterable[Item]) -> Iterator[str]:
    """Yields the containers in which code of `items` ran, at OpenAI; computed when read."""
    for item in items:
        if isinstance(item, ProviderItem) and item.call and item.call.tool == "code_interpreter":
            yield string_of(fields_of(msgspec.json.decode(item.raw)).get("container_id"))


def messages_use(fields: Object) -> HostedCall | None:
    """Returns the call in a block of Messages that begins one, or None."""
    kind = string_of(fields.get("type"))
    if kind not in {"server_tool_use", "mcp_tool_use"}:
        return None
    name, given = string_of(fields.get("name")), fields_of(fields.get("input"))
    is_remote = kind == "mcp_tool_use"
    tool = "mcp" if is_remote else _MESSAGES.get(name, name)
    shown = [given[field] for field in _SHOWN if field in given]
    is_plain = not is_remote and len(given) == 1 and shown and isinstance(shown[0], str)
    arguments = string_of(shown[0]) if is_plain else _json(given)
    return bounded(
        HostedCall(
            tool,
            string_of(fields.get("id")),
            arguments=arguments,
            name=name if is_remote else "",
            server=string_of(fields.get("server_name")),
        )
    )


def messages_result(fields: Object, uses: Mapping[str, HostedCall]) -> HostedCall | None:
    """Returns the call in a block of Messages that contains its result, or None.

    `uses` are the calls of the response by their ids. A response that was paused contains the call,
    and the next one its result.
    """
    call_id = string_of(fields.get("tool_use_id"))
    kind = string_of(fields.get("type")).removesuffix("_tool_result")
    if not call_id or kind == fields.get("type"):
        return None
    begun = uses.get(call_id) or HostedCall(_MESSAGES.get(kind, kind), call_id)
    content = fields.get("content")
    error = string_of(fields_of(content).get("error_code"))
    failed = error or fields.get("is_error") is True or _returned(content)
    parts = [fields_of(one) for one in list_of(content)]
    sources = [url_source(one) for one in parts if one.get("url")]
    return bounded(
        msgspec.structs.replace(
            begun,
            status="failed" if failed else "completed",
            output=error
            or _lines(text for one in parts for text in _texts(one))
            or string_of(content),
            sources=tuple(sources),
        )
    )


def gemini_part(fields: Object, call_id: str, uses: Mapping[str, HostedCall]) -> HostedCall | None:
    """Returns the call in a part of Gemini, or None.

    `uses` are the calls of the response by their ids; one without an id has `call_id`.
    """
    for kind in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
        if (value := fields_of(fields.get(kind))) or kind in fields:
            break
    else:
        return None
    call_id = string_of(value.get("id")) or call_id
    begun = uses.get(call_id)
    if kind == "executableCode":
        call = HostedCall("code_interpreter", call_id, arguments=string_of(value.get("code")))
    elif kind == "codeExecutionResult":
        outcome = string_of(value.get("outcome"))
        call = msgspec.structs.replace(
            begun or HostedCall("code_interpreter", call_id),
            status="completed" if outcome in {"", "OUTCOME_OK"} else "failed",
            output=string_of(value.get("output")),
        )
    else:
        word = string_of(value.get("toolType"))
        call = begun or HostedCall(_GEMINI.get(word, word.lower()), call_id)
        given = fields_of(value.get("args"))
        if kind == "toolCall":
            texts = list_of(given.get("queries") or given.get("urls"))
            call = msgspec.structs.replace(call, arguments=_lines(texts) or _json(given))
        else:
            call = msgspec.structs.replace(call, status="completed")
    return bounded(call)


def gemini_search(grounding: Object, call_id: str) -> HostedCall | None:
    """Returns the search that the metadata of a response of Gemini tells of, or None."""
    queries = [*list_of(grounding.get("webSearchQueries"))]
    chunks = [fields_of(one) for one in list_of(grounding.get("groundingChunks"))]
    files = [fields_of(one.get("retrievedContext")) for one in chunks if "retrievedContext" in one]
    pages = [url_source(one.get("web") or one.get("maps")) for one in chunks]
    if not queries and not chunks:
        return None
    found = [FileCitation(filename=string_of(one.get("title"))) for one in files]
    queries += list_of(grounding.get("retrievalQueries"))
    return bounded(
        HostedCall(
            "file_search" if files else "web_search",
            call_id,
            "completed",
            _lines(queries),
            output=_lines(one.get("text") for one in files),
            sources=(*pages, *found),
        )
    )


def gemini_pages(metadata: Object, call_id: str) -> HostedCall | None:
    """Returns the reading of pages that the metadata of a response of Gemini tells of, or None."""
    pages = [fields_of(one) for one in list_of(metadata.get("urlMetadata"))]
    if not pages:
        return None
    urls = [string_of(one.get("retrievedUrl")) for one in pages]
    states = {string_of(one.get("urlRetrievalStatus")) for one in pages}
    is_read = "URL_RETRIEVAL_STATUS_SUCCESS" in states
    return bounded(
        HostedCall(
            "web_fetch",
            call_id,
            "completed" if is_read else "failed",
            _lines(urls),
            output="" if is_read else _lines(sorted(states)),
            sources=tuple(map(UrlCitation, urls)),
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


def _json(given: Object) -> str:
    return msgspec.json.encode(joined_all(given)).decode() if given else ""


def _returned(content: object) -> bool:
    """Whether code ended with an error."""
    return bool(count_of(fields_of(content).get("return_code")))


def _texts(fields: Object) -> Iterator[object]:
    """Yields the texts in a part of a result; those of pages that were found are encrypted."""
    yield from (fields.get(name) for name in ("text", "stdout", "stderr"))
    document = fields_of(fields.get("content"))
    source = fields_of(document.get("source"))
    if source.get("type") == "text":
        yield source.get("data")


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
