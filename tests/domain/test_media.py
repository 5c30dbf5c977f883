"""What bytes are, the base64 that carries them, and names of files."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.media import (
    IMAGES,
    MAX_CONTENT,
    OCTETS,
    TEXTS,
    Content,
    base64_size,
    media_type,
    read_base64,
    read_data_url,
    safe_name,
)

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("data", "name", "claimed", "expected"),
    [
        (b"%PDF-1.7\n...", "a.txt", "text/plain", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "", "", "image/png"),
        (b"\xff\xd8\xff\xe0", "", "image/png", "image/jpeg"),
        (b"GIF89a", "", "", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "", "", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "", "", "audio/wav"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00WAVE", "", "", OCTETS),
        (b"ID3\x04", "", "", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "", "", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "", "", "audio/aac"),
        ("\ufeffhi".encode("utf-16-le"), "", "", OCTETS),
        (b"fLaC", "", "", "audio/flac"),
        (b"OggS", "", "", "audio/ogg"),
        (b"\x00\x00\x00\x20ftypM4A ", "", "", "audio/mp4"),
        (b"\x00\x00\x00\x20ftypisom", "", "", "video/mp4"),
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "a.docx", "", DOCX),
        (b"PK\x03\x04" + bytes(26) + b"evil.exe", "a.docx", DOCX, "application/zip"),
        (b"\x1f\x8b\x08", "a.txt", "", "application/gzip"),
        (b"hi", "", "", "text/plain"),
        ("Grüße\n\t".encode(), "a.md", "", "text/markdown"),
        (b"a,b\n", "A.CSV", "", "text/csv"),
        (b"{}", "", "application/json; charset=utf-8", "application/json"),
        (b"<html><script>", "a.html", "text/html", "text/plain"),
        (b"<svg onload='x'/>", "a.svg", "image/svg+xml", "text/plain"),
        (b"alert(1)", "a.js", "text/javascript", "text/plain"),
        (b"a\x00b", "a.txt", "text/plain", OCTETS),
        (b"\xe4", "a.txt", "text/plain", OCTETS),
        (b"", "a.txt", "text/plain", OCTETS),
    ],
)
def test_media_types_are_told_from_the_bytes(
    data: bytes, name: str, claimed: str, expected: str
) -> None:
    assert media_type(data, name, claimed) == expected


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_no_type_is_one_that_a_browser_executes(data: bytes, name: str, claimed: str) -> None:
    found = media_type(data, name, claimed)
    assert not any(word in found for word in ("html", "svg", "xml+", "javascript"))
    if found in TEXTS:
        data.decode()
    else:
        assert found == OCTETS or found in IMAGES or "/" in found


@given(
    data=st.binary(min_size=1, max_size=5000),
    claimed=st.sampled_from(["", "text/csv", "image/png"]),
    is_url_safe=st.booleans(),
)
def test_whatever_was_encoded_is_read(data: bytes, claimed: str, *, is_url_safe: bool) -> None:
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    text = encode(data).decode()
    text = text.rstrip("=") if is_url_safe else text[:40] + "\r\n " + text[40:]
    content = read_data_url(f"data:{claimed};base64,{text}")
    assert isinstance(content, Content)
    assert content.decoded() == data
    assert content.size == len(data)
    assert content.media_type == media_type(data, "", claimed)
    assert read_data_url(content.url) == Content(
        content.media_type, content.data, content.media_type
    )


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda d: base64.b85encode(d).decode()))
def test_any_text_is_read_or_is_a_problem(text: str) -> None:
    for found in (read_base64(text), read_data_url(f"data:,{text}"), read_data_url(text)):
        if isinstance(found, Content):
            assert len(found.decoded()) == found.size > 0
        else:
            assert found


def test_a_text_longer_than_what_is_sniffed_is_read_to_its_end() -> None:
    text = ("ö" * 10_000).encode()
    ends_in_zero = text + b"\x00"
    for data, expected in ((text, "text/plain"), (ends_in_zero, OCTETS)):
        content = read_base64(base64.b64encode(data).decode())
        assert isinstance(content, Content)
        assert content.media_type == expected


def test_what_is_too_large_is_not_decoded() -> None:
    for length in (MAX_CONTENT * 4 // 3 + 8, 3 * MAX_CONTENT):
        assert read_base64("A" * (length // 4 * 4)) == "it is larger than 50 MiB"


@given(st.binary(max_size=40))
def test_the_size_of_base64_is_that_of_its_bytes(data: bytes) -> None:
    assert base64_size(base64.b64encode(data).decode()) == len(data)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\system32\\a.txt", "a.txt"),
        ("/", ""),
        ("..", ""),
        (".ssh", "ssh"),
        ("a\r\nSet-Cookie: x.pdf", "aSet-Cookie_ x.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ('x" onload="y', "x_ onload=_y"),
        ("a\x00.pdf", "a.pdf"),
        ("Bericht für März.pdf", "Bericht für März.pdf"),
        (f"{'x' * 300}.pdf", f"{'x' * 251}.pdf"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_of_files_are_made_safe(name: str, expected: str) -> None:
    assert safe_name(name) == expected


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_a_safe_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe not in {".", ".."}
    assert not set(safe) & set('/\\<>:"|?*\r\n\x00')
    assert len(safe) <= 255
    assert safe_name(safe) == safe
    safe.encode()
