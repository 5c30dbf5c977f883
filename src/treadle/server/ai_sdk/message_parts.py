"""Parts of messages: those of the AI SDK as items, and items as parts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treadle.domain.arguments import shown
from treadle.domain.events import object_in
from treadle.domain.files import InputAudio, InputFile, InputImage, Media
from treadle.domain.items import (
    FileCitation,
    HostedCall,
    InputText,
    Message,
    OutputText,
    UrlCitation,
)
from treadle.domain.media import OCTETS, type_by_name
from treadle.errors import InvalidInput
from treadle.server.ai_sdk.chunks import Chunk

_INPUTS = {
    "web_search": "query",
    "file_search": "query",
    "web_fetch": "url",
    "code_interpreter": "code",
}
_WITHOUT_MEANING = ("data-", "source-", "step-start")
"""The beginnings of the types of parts that a model does not read."""


def content_of(parts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the parts of a message of the user in a form of `Input`; raises `InvalidInput`."""
    content: list[dict[str, Any]] = []
    for part in parts:
        match part.get("type"):
            case "text":
                content.append({"type": "text", "text": part.get("text")})
            case "file":
                content.append(_media(part))
            case str() as kind if kind.startswith(_WITHOUT_MEANING):
                pass
            case _:
                raise InvalidInput(
                    f"A part of a message of the user is {shown(part)}; only text and file are "
                    "served."
                )
    return content


def _media(part: Mapping[str, object]) -> dict[str, Any]:
    kind, url = part.get("mediaType"), part.get("url")
    if not isinstance(kind, str) or not isinstance(url, str):
        raise InvalidInput("A part of the type file needs mediaType and url, which are texts.")
    match kind.partition("/")[0]:
        case "image" if kind != "image/svg+xml":
            return {"type": "input_image", "image_url": url}
        case "audio":
            return {"type": "input_audio", "audio_url": url}
        case _:
            return {"type": "input_file", "file_url": url, "filename": part.get("filename") or ""}


def ui_parts(message: Message) -> list[Chunk]:
    """Returns the parts of a message of the user."""
    parts: list[Chunk] = []
    for part in message.content:
        if isinstance(part, InputText | OutputText):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, Media):
            parts.append(_file_part(part))
    return parts


def _file_part(part: Media) -> Chunk:
    match part:
        case InputImage():
            url, kind = part.image_url, "image"
        case InputFile():
            url, kind = part.file_data or part.file_url, OCTETS
        case InputAudio():
            url, kind = part.audio_url, "audio"
    # A file that is kept is read by its id, with the key of the reader.
    url = url or f"/api/v1/files/{part.file_id}/content"
    shown_part: Chunk = {"type": "file", "mediaType": part.media_type or kind, "url": url}
    if isinstance(part, InputFile) and part.filename:
        shown_part["filename"] = part.filename
    return shown_part


def hosted_input(call: HostedCall) -> tuple[str, object]:
    """Returns the name of a hosted tool as a client shows it, and the input of its call."""
    if call.server:
        given = object_in(call.arguments or "{}")
        return f"{call.server}.{call.name}", call.arguments if given is None else given
    return call.tool, {_INPUTS.get(call.tool, "input"): call.arguments}


def hosted_output(call: HostedCall) -> Chunk:
    """Returns the result of a call of a hosted tool."""
    pages = [one for one in call.sources if isinstance(one, UrlCitation)]
    sources = [{"url": one.url, "title": one.title} for one in pages]
    return {"text": call.output, "sources": sources}


def citations_of(message: Message) -> tuple[list[Chunk], list[Chunk]]:
    """Returns the sources of an answer, each once, and the places that cite them."""
    sources: dict[tuple[str, str], Chunk] = {}
    citations: list[Chunk] = []
    for citation in _annotations(message):
        key = _key(citation)
        if key not in sources:
            sources[key] = _source(f"{message.id}:{len(sources) + 1}", citation)
        citations.append(_citation(sources[key], citation))
    return list(sources.values()), citations


def _annotations(message: Message) -> Sequence[UrlCitation | FileCitation]:
    texts = (part for part in message.content if isinstance(part, OutputText))
    return [one for text in texts for one in text.annotations]


def _key(citation: UrlCitation | FileCitation) -> tuple[str, str]:
    if isinstance(citation, UrlCitation):
        return "url", citation.url
    return "file", citation.file_id or citation.filename


def _source(id: str, citation: UrlCitation | FileCitation) -> Chunk:
    if isinstance(citation, UrlCitation):
        source: Chunk = {"type": "source-url", "sourceId": id, "url": citation.url}
        return {**source, "title": citation.title} if citation.title else source
    name = citation.filename
    source = {
        "type": "source-document",
        "sourceId": id,
        "mediaType": type_by_name(name) or OCTETS,
        "title": name or citation.file_id,
    }
    return {**source, "filename": name} if name else source


def _citation(source: Chunk, citation: UrlCitation | FileCitation) -> Chunk:
    kind = str(source["type"]).removeprefix("source-")
    fields = {name: value for name, value in source.items() if name not in {"type", "sourceId"}}
    made: Chunk = {
        "source": {"type": "source", "sourceType": kind, "id": source["sourceId"], **fields}
    }
    places = (("startIndex", citation.start_index), ("endIndex", citation.end_index))
    made |= {name: place for name, place in places if place is not None and place >= 0}
    return {**made, "citedText": citation.cited_text} if citation.cited_text else made
