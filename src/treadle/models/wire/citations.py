"""Citations in a response, as all providers' models write them: sources of a text.

https://platform.openai.com/docs/guides/tools-web-search,
https://platform.claude.com/docs/en/build-with-claude/citations,
https://ai.google.dev/gemini-api/docs/google-search
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from treadle.domain.items import Annotation, FileCitation, UrlCitation
from treadle.models.wire.loose_json import count_of, fields_of, list_of, string_of

MAX_ANNOTATIONS = 10_000
"""The most annotations of a text that are kept."""


def annotation_of(value: object) -> Annotation | None:
    """Returns the citation in an annotation of OpenAI or a citation of Anthropic, or None."""
    fields = fields_of(value)
    match fields.get("type"):
        case "url_citation":
            nested = fields_of(fields.get("url_citation"))  # as Chat Completions has it
            return _url_citation(nested or fields)
        case "web_search_result_location" | "search_result_location":
            return UrlCitation(
                url=string_of(fields.get("url") or fields.get("source")),
                title=string_of(fields.get("title")),
                cited_text=string_of(fields.get("cited_text")),
            )
        case "file_citation" | "container_file_citation" | "file_path":
            return FileCitation(
                file_id=string_of(fields.get("file_id")),
                filename=string_of(fields.get("filename")),
                start_index=count_of(fields.get("start_index") or fields.get("index")),
                end_index=count_of(fields.get("end_index")),
            )
        case "char_location" | "page_location" | "content_block_location":
            return FileCitation(
                filename=string_of(fields.get("document_title")),
                cited_text=string_of(fields.get("cited_text")),
                page=count_of(fields.get("start_page_number")),
            )
        case _:
            return None


def converse_annotation(value: object) -> Annotation | None:
    """Returns the citation in a delta of Bedrock's Converse API, or None."""
    fields = fields_of(value)
    location = fields_of(fields.get("location"))
    title, source = string_of(fields.get("title")), string_of(fields.get("source"))
    quoted = "".join(
        string_of(fields_of(one).get("text")) for one in list_of(fields.get("sourceContent"))
    )
    if url := string_of(fields_of(location.get("web")).get("url")):
        return UrlCitation(url=url, title=title, cited_text=quoted)
    if "searchResultLocation" in location:
        return UrlCitation(url=source, title=title, cited_text=quoted)
    page = count_of(fields_of(location.get("documentPage")).get("start"))
    if not (title or quoted or source):
        return None
    return FileCitation(filename=title or source, cited_text=quoted, page=page)


def _url_citation(fields: Mapping[str, object]) -> UrlCitation:
    return UrlCitation(
        url=string_of(fields.get("url")),
        title=string_of(fields.get("title")),
        start_index=count_of(fields.get("start_index")),
        end_index=count_of(fields.get("end_index")),
    )


def annotations_of(values: object, shift: int = 0) -> list[Annotation]:
    """Returns the citations in a list; their places are moved by `shift` characters."""
    found = [annotation_of(value) for value in list_of(values)[:MAX_ANNOTATIONS]]
    return [_moved(one, shift) for one in found if one is not None]


def content_annotations(parts: Iterable[Mapping[str, object]]) -> list[list[Annotation]]:
    """Returns the citations of each text of a message of Responses.

    Texts that follow one another are one text here.
    """
    texts: list[list[Annotation]] = []
    length, is_text = 0, False
    for part in parts:
        if part.get("type") == "refusal":
            is_text = False
            continue
        if not is_text:
            texts.append([])
            length, is_text = 0, True
        texts[-1] += annotations_of(part.get("annotations"), length)
        length += len(string_of(part.get("text")))
    return texts


def grounding_annotations(grounding: object, citations: object, text: str) -> list[Annotation]:
    """Returns the sources of a text of Gemini: of a search, and of what it recites.

    The API counts places in bytes of UTF-8; those of the annotations are characters.
    """
    fields = fields_of(grounding)
    sources = [_source(fields_of(chunk)) for chunk in list_of(fields.get("groundingChunks"))]
    cited: list[tuple[Mapping[str, object], Mapping[str, object]]] = []
    for support in list_of(fields.get("groundingSupports")):
        support = fields_of(support)
        for number in list_of(support.get("groundingChunkIndices")):
            place = count_of(number)
            if place is not None and place < len(sources):
                cited.append((sources[place], fields_of(support.get("segment"))))
    if not cited:
        cited = [(source, {}) for source in sources]
    quoted = fields_of(citations)
    for one in list_of(quoted.get("citationSources") or quoted.get("citations")):
        cited.append((fields_of(one), fields_of(one)))
    encoded = text.encode(errors="replace")
    found: list[Annotation] = []
    for source, segment in cited[:MAX_ANNOTATIONS]:
        title, places = string_of(source.get("title")), _characters(segment, encoded)
        if url := string_of(source.get("uri")):
            found.append(UrlCitation(url, title, *places))
        elif title and "text" in source:  # of a file search
            found.append(FileCitation("", title, *places))
    return found


def _source(chunk: Mapping[str, object]) -> Mapping[str, object]:
    found = (fields_of(chunk.get(kind)) for kind in ("web", "retrievedContext", "maps"))
    return next((fields for fields in found if fields), fields_of(None))


def _characters(segment: Mapping[str, object], encoded: bytes) -> tuple[int | None, int | None]:
    """Returns the place of a segment in characters; none for all of the text."""
    end = count_of(segment.get("endIndex"))
    if end is None:
        return None, None
    start = count_of(segment.get("startIndex")) or 0  # left out if it is 0
    return _count(encoded[:start]), _count(encoded[:end])


def _count(encoded: bytes) -> int:
    return len(encoded.decode(errors="ignore"))


def _moved(annotation: Annotation, shift: int) -> Annotation:
    if not shift or annotation.start_index is None:
        return annotation
    end = annotation.end_index
    return replace(
        annotation,
        start_index=annotation.start_index + shift,
        end_index=None if end is None else end + shift,
    )
