import pytest
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from treadle.mcp.result import error_text, output_of
from treadle.tools.output import Image


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def output(*content: ContentBlock, structured: object = None) -> object:
    return output_of(CallToolResult(content=list(content), structured_content=structured))


def test_text() -> None:
    assert output() == ""
    assert output(text("a")) == "a"
    assert output(text("a"), text("b")) == "a\nb"


@pytest.mark.parametrize(
    ("content", "structured", "expected"),
    [
        ("", {"a": 1}, '{"a":1}'),
        ('{\n  "a": 1\n}', {"a": 1}, '{"a":1}'),
        ("One a.", {"a": 1}, 'One a.\n{"a":1}'),
        ("5", {"result": 5}, "5"),
        ("", {"result": 5}, '{"result":5}'),
        ("[1, 2]", [1, 2], "[1,2]"),
    ],
)
def test_structured_results_are_given_once(content: str, structured: object, expected: str) -> None:
    assert output(*([text(content)] if content else []), structured=structured) == expected


def test_images_become_parts() -> None:
    image = ImageContent(type="image", data="AAAA", mime_type="image/png")
    found = output(text("Look:"), image)
    assert isinstance(found, list)
    words, shown = found
    assert words == "Look:"
    assert isinstance(shown, Image)
    assert shown.url == "data:image/png;base64,AAAA"
    words, shown = output(image, structured={"a": 1})  # type: ignore[misc]
    assert words == '{"a":1}'


def test_what_no_model_reads_is_named() -> None:
    assert output(
        AudioContent(type="audio", data="AAAA", mime_type="audio/wav"),
        ImageContent(type="image", data="AAAA", mime_type="image/svg+xml"),
        ImageContent(type="image", data="no base64!", mime_type="image/png"),
        ResourceLink(type="resource_link", name="log", uri="file:///log", description="The log."),
        ResourceLink(type="resource_link", name="bare", uri="file:///bare"),
    ) == (
        "[audio, audio/wav, cannot be shown]\n[image/svg+xml, cannot be shown]\n"
        "[image/png, cannot be shown]\n"
        "[log](file:///log) The log.\n[bare](file:///bare)"
    )


def test_resources() -> None:
    written = TextResourceContents(uri="file:///a", text="inside")
    image = BlobResourceContents(uri="file:///b", blob="AAAA", mime_type="image/png")
    blob = BlobResourceContents(uri="file:///c", blob="AAAA")
    found = output(*(EmbeddedResource(type="resource", resource=r) for r in (written, image, blob)))
    assert isinstance(found, list)
    assert found[0] == "inside"
    assert isinstance(found[1], Image)
    assert found[2] == "[application/octet-stream, cannot be shown]"


def test_errors() -> None:
    image = ImageContent(type="image", data="AAAA", mime_type="image/png")
    assert error_text(CallToolResult(content=[text("a"), image], is_error=True)) == "a"
    assert error_text(CallToolResult(content=[], is_error=True)) == "it gave no reason"
