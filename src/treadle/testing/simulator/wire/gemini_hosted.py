"""Parts and metadata of Gemini for the calls of hosted tools.

https://ai.google.dev/gemini-api/docs/google-search, https://ai.google.dev/gemini-api/docs/code-execution
"""

from collections.abc import Sequence

from treadle.domain.items import Annotation, HostedCall, UrlCitation
from treadle.testing.simulator.turn import Hosted, Text, Turn

Object = dict[str, object]


def hosted_parts(call: HostedCall) -> list[Object]:
    """Returns the parts of a call of the code interpreter; other calls are metadata alone."""
    if call.tool != "code_interpreter":
        return []
    outcome = "OUTCOME_FAILED" if call.status == "failed" else "OUTCOME_OK"
    return [
        {"executableCode": {"language": "PYTHON", "code": call.arguments}},
        {"codeExecutionResult": {"outcome": outcome, "output": call.output}},
    ]


def metadata(turn: Turn) -> Object:
    """Returns the fields of the candidate that tell of searches, pages and sources."""
    calls = [output.call for output in turn.outputs if isinstance(output, Hosted)]
    texts = [output for output in turn.outputs if isinstance(output, Text)]
    cited = [(one, text.text) for text in texts for one in text.citations]
    found: Object = {}
    if cited or any(call.tool in {"web_search", "file_search"} for call in calls):
        chunks = [_chunk(one) for one, _ in cited]
        supports = [_support(one, text, number) for number, (one, text) in enumerate(cited)]
        found["groundingMetadata"] = {
            "webSearchQueries": [one.arguments for one in calls if one.tool == "web_search"],
            "groundingChunks": chunks,
            "groundingSupports": supports,
        }
    if pages := [one for one in calls if one.tool == "web_fetch"]:
        found["urlContextMetadata"] = {"urlMetadata": _pages(pages)}
    return found


def _chunk(citation: Annotation) -> Object:
    if isinstance(citation, UrlCitation):
        return {"web": {"uri": citation.url, "title": citation.title}}
    return {"retrievedContext": {"title": citation.filename, "text": citation.cited_text}}


def _support(citation: Annotation, text: str, number: int) -> Object:
    start, end = citation.start_index or 0, citation.end_index or len(text)
    places = {"startIndex": len(text[:start].encode()), "endIndex": len(text[:end].encode())}
    return {"segment": places, "groundingChunkIndices": [number]}


def _pages(calls: Sequence[HostedCall]) -> list[Object]:
    status = "URL_RETRIEVAL_STATUS_SUCCESS"
    return [{"retrievedUrl": one.arguments, "urlRetrievalStatus": status} for one in calls]
