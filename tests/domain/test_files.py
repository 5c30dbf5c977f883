"""Parts with files, images and audio: what callers may pass, and what is refused."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Message,
)
from treadle.domain.files import Media, data_of
from treadle.domain.inputs import as_history, as_message
from treadle.domain.media import Content, read_data_url
from treadle.errors import InvalidInput

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PDF = b"%PDF-1.7\n" + bytes(8)
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(8)
FILE_ID = f"file_{'0af' * 21}1"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def only_part(given: Any) -> Any:
    (part,) = as_message(given).content
    return part


def test_parts_are_made_of_bytes() -> None:
    image = InputImage.from_bytes(PNG, detail="low")
    assert (image.media_type, image.size, image.detail) == ("image/png", len(PNG), "low")
    file = InputFile.from_bytes(b"a,b\n", "../table.csv")
    assert (file.filename, file.media_type, file.size) == ("table.csv", "text/csv", 4)
    audio = InputAudio.from_bytes(WAV)
    assert (audio.media_type, audio.size) == ("audio/wav", len(WAV))
    for part in (image, file, audio):
        assert only_part(part) == part
        assert only_part([part]) == part
        content = read_data_url(data_of(part))
        assert isinstance(content, Content)
        assert content.size == part.size


def test_parts_are_made_of_files_of_this_machine(tmp_path: Path) -> None:
    for name, data, kind in (
        ("a.png", PNG, InputImage),
        ("b.pdf", PDF, InputFile),
        ("c.wav", WAV, InputAudio),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        part = kind.from_path(path)
        assert part.size == len(data)
        assert kind.from_path(str(path)) == part
    assert InputFile.from_path(tmp_path / "b.pdf").filename == "b.pdf"
    with pytest.raises(FileNotFoundError):
        InputFile.from_path(tmp_path / "missing")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            {"type": "input_image", "image_url": f"data:image/gif;base64,{encoded(PNG)}"},
            InputImage.from_bytes(PNG),
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}},
            InputImage("https://x/y.png", "high"),
        ),
        ({"type": "input_image", "file_id": FILE_ID}, InputImage(file_id=FILE_ID)),
        (
            {
                "type": "input_file",
                "filename": "/tmp/r.pdf",
                "file_data": f"data:text/html;base64,{encoded(PDF)}",
            },
            InputFile.from_bytes(PDF, "r.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "r.pdf", "file_data": encoded(PDF)}},
            InputFile.from_bytes(PDF, "r.pdf"),
        ),
        (
            {"type": "input_file", "file_url": "https://x/y.pdf"},
            InputFile(file_url="https://x/y.pdf"),
        ),
        (
            {"type": "input_file", "file_url": f"data:;base64,{encoded(PDF)}"},
            InputFile.from_bytes(PDF),
        ),
        ({"type": "file", "file": {"file_id": FILE_ID}}, InputFile(file_id=FILE_ID)),
        (
            {"type": "input_audio", "input_audio": {"data": encoded(WAV), "format": "mp3"}},
            InputAudio.from_bytes(WAV),
        ),
        ({"type": "input_audio", "file_id": FILE_ID}, InputAudio(file_id=FILE_ID)),
    ],
)
def test_forms_of_the_openai_apis_are_accepted(form: dict[str, Any], expected: Media) -> None:
    assert only_part(form) == expected
    assert only_part([form]) == expected
    assert only_part({"role": "user", "content": [form]}) == expected
    again = msgspec.json.decode(msgspec.json.encode(expected))
    assert only_part(again) == expected


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"type": "input_file", "file_url": "file:///etc/passwd"}, "must begin with https://"),
        ({"type": "input_file", "file_url": "/etc/passwd"}, "must begin with https://"),
        ({"type": "input_file", "path": "/etc/passwd"}, "file_url must be a text, not None"),
        ({"type": "input_file", "file_url": "https://x/" + "y" * 30_000}, "characters"),
        ({"type": "input_file", "file_data": "!!!!"}, "not valid base64"),
        ({"type": "input_file", "file_data": "data:text/plain,hi"}, "not in base64"),
        ({"type": "input_file", "file_data": "data:text/plain;base64,"}, "empty"),
        ({"type": "input_file", "file_data": encoded(PDF), "filename": 7}, "filename must be a"),
        ({"type": "input_file", "file_id": "file-abc"}, "not the id of a file of treadle"),
        ({"type": "input_file", "file_id": "file_" + "A" * 64}, "not the id of a file"),
        ({"type": "input_file", "file_id": 7}, "file_id must be a text"),
        ({"type": "input_image", "image_url": "javascript:alert(1)"}, "must begin with"),
        ({"type": "input_image", "image_url": f"data:;base64,{encoded(PDF)}"}, "application/pdf"),
        (
            {"type": "input_image", "image_url": f"data:;base64,{encoded(b'<svg onload=x>')}"},
            "SVG is a program",
        ),
        ({"type": "input_audio", "input_audio": {"data": encoded(PDF)}}, "application/pdf"),
        ({"type": "input_audio", "input_audio": {"data": "?"}}, "not valid base64"),
        ({"type": "input_audio", "audio_url": "ftp://x/y.mp3"}, "must begin with"),
    ],
)
def test_other_forms_are_refused(form: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        as_message(form)


def test_html_and_svg_are_plain_text_as_files() -> None:
    for data in (b"<html><script>alert(1)</script>", b"<svg onload='alert(1)'/>"):
        part = only_part({"type": "input_file", "filename": "a.html", "file_data": encoded(data)})
        assert part.media_type == "text/plain"
        assert part.file_data.startswith("data:text/plain;base64,")


def test_what_a_caller_claims_of_the_content_does_not_count() -> None:
    given = InputFile(f"data:;base64,{encoded(PDF)}", "a.pdf", media_type="text/html", size=3)
    assert only_part(given) == InputFile.from_bytes(PDF, "a.pdf")
    assert only_part(InputFile(file_id=FILE_ID, media_type="text/html", size=3)) == InputFile(
        file_id=FILE_ID
    )


def test_the_files_of_a_message_are_limited_together() -> None:
    part = InputFile.from_bytes(b"x" * (20 * 1024 * 1024))
    as_message([part, part])
    with pytest.raises(InvalidInput, match="together it is larger than 50 MiB"):
        as_message([part, part, part])
    with pytest.raises(InvalidInput, match="larger than 50 MiB"):
        InputFile.from_bytes(bytes(50 * 1024 * 1024 + 1))
    with pytest.raises(InvalidInput, match="empty"):
        InputFile.from_bytes(b"")


def test_a_history_keeps_media_that_were_accepted_before() -> None:
    odd = InputImage("data:image/png;base64,bm9uZQ==")
    call = FunctionCall("c", "draw", "{}")
    items = [Message("user", (odd,), "m"), call, FunctionCallOutput("c", (odd, InputText("x")))]
    assert list(as_history(items)) == items
    with pytest.raises(InvalidInput, match="octet-stream|text/plain"):
        as_history([{"role": "user", "content": [msgspec.to_builtins(odd)]}])
    output = [{"type": "input_file", "file_data": encoded(PDF)}]
    made = as_history([call, {"type": "function_call_output", "call_id": "c", "output": output}])[1]
    assert isinstance(made, FunctionCallOutput)
    assert made.output == (InputFile.from_bytes(PDF),)


@given(
    st.dictionaries(
        st.sampled_from(
            ["file_data", "file_url", "file_id", "filename", "image_url", "input_audio", "file"]
        ),
        st.text(max_size=30) | st.integers() | st.none() | st.just({"data": "AA=="}),
    ),
    st.sampled_from(["input_file", "file", "input_image", "image_url", "input_audio"]),
)
def test_any_mapping_becomes_a_part_or_is_refused(fields: dict[str, Any], kind: str) -> None:
    try:
        part = only_part({**fields, "type": kind})
    except InvalidInput:
        return
    assert isinstance(part, Media)
    assert only_part(part) == part
