"""Texts and annotations of messages, as the Responses API has them."""

from treadle.domain.items import Message, OutputText, UrlCitation
from treadle.server.responses.response_object import Json, text_part


def text_of(item: Message) -> Json:
    """Returns the text of a message of the model as one part, with its sources."""
    annotations: list[Json] = []
    start = 0
    for part in item.content:
        if isinstance(part, OutputText):
            annotations += _annotations(part, start)
            start += len(part.text)
    return text_part(item.text, annotations)


def _annotations(part: OutputText, offset: int) -> list[Json]:
    found: list[Json] = []
    for one in part.annotations:
        start = offset + (one.start_index or 0)
        if isinstance(one, UrlCitation):
            end = len(part.text) if one.end_index is None else one.end_index
            found.append(
                {
                    "type": "url_citation",
                    "url": one.url,
                    "title": one.title,
                    "start_index": start,
                    "end_index": offset + end,
                }
            )
        else:
            found.append(
                {
                    "type": "file_citation",
                    "file_id": one.file_id,
                    "filename": one.filename,
                    "index": start,
                }
            )
    return found
