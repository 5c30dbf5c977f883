"""Media: what bytes are, told from the bytes themselves, and the base64 that carries them.

A media type that a caller claims is not trusted. Types that a browser would execute, such as
`text/html` and `image/svg+xml`, are never the result: such a file is plain text.
"""

import base64
import binascii
import mimetypes
import re
import unicodedata
from typing import Final

from msgspec import Struct

from treadle.errors import InvalidInput

MAX_CONTENT: Final = 50 * 1024 * 1024
"""The most bytes of files, images and audio in one message.

OpenAI accepts 50 MB in all files of a request: https://platform.openai.com/docs/guides/pdf-files
"""
OCTETS: Final = "application/octet-stream"
PDF: Final = "application/pdf"
TEXT: Final = "text/plain"
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The formats that the vision guides of OpenAI, Anthropic and Mistral name."""
TEXTS: Final = frozenset({TEXT, "text/markdown", "text/csv", "application/json"})
OFFICE: Final = frozenset(
    {
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    }
)

_MARKS: Final = (
    (0, b"%PDF-", PDF),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
)
_RIFF = {"image/webp", "audio/wav"}
_MIN_HEAD: Final = 16
_CONTENT_TYPES: Final = b"[Content_Types].xml"  # the first entry of a document of Office
# Audio without tags begins with 11 set bits, then the version and the layer: III is MP3, and AAC
# has none. Another value after 0xFF may be the mark of UTF-16.
_SYNC, _LAYER, _LAYER_III, _NO_LAYER = 0xE0, 0x06, 0x02, 0x00
_SUFFIXES: Final = {
    "md": "text/markdown",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
_NOT_IN_TEXT = bytes(set(range(32)) - set(b"\t\n\r\f\x1b\b"))
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)

_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<options>(?:;[^;,]*)*),", re.IGNORECASE)
_LONGEST_HEAD = 1000
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = str.maketrans("-_", "+/")
_SPACE = str.maketrans("", "", " \t\r\n")
_SNIFFED = 4096  # characters of base64, enough for every mark

_MAX_NAME = 255
_NOT_IN_NAMES = re.compile(r'[<>:"|?*]')


class Content(Struct, frozen=True):
    """The content of a `data:` URL: its media type, told from the bytes, and canonical base64.

    `claimed` is the media type that the URL names, or "".
    """

    media_type: str
    data: str
    claimed: str = ""

    @property
    def size(self) -> int:
        """The number of bytes."""
        return base64_size(self.data)

    @property
    def url(self) -> str:
        """The `data:` URL."""
        return f"data:{self.media_type};base64,{self.data}"

    def decoded(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.data)


def media_type(data: bytes, name: str = "", claimed: str = "") -> str:
    """Returns the media type of bytes; the name and the claim only choose between kinds of text.

    Texts are `text/plain`, `text/markdown`, `text/csv` or `application/json`. What is not known is
    `application/octet-stream`.
    """
    found = _marked(data[:_MIN_HEAD])
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    wanted = _SUFFIXES.get(suffix) or claimed.partition(";")[0].strip().lower()
    if (
        found == "application/zip"
        and wanted in OFFICE
        and b"[Content_Types].xml" in data[:_SNIFFED]
    ):
        return wanted
    if found:
        return found
    if not data or not _is_text(data):
        return OCTETS
    return wanted if wanted in TEXTS else TEXT


def type_by_name(name: str) -> str:
    """Returns the type that the end of a name or of a path claims, "" if it says nothing."""
    # `guess_type` reads files of the system at its first call, which may be in an event loop.
    _, dot, end = name.rpartition(".")
    mark = f".{end.lower()}" if dot else ""
    return mimetypes.types_map.get(mark) or mimetypes.common_types.get(mark, "")


def _marked(head: bytes) -> str:
    for start, mark, kind in _MARKS:
        if head.startswith(mark, start) and (kind not in _RIFF or head.startswith(b"RIFF")):
            return kind
    if len(head) > 1 and head[0] == 0xFF and head[1] & _SYNC == _SYNC:
        layer = head[1] & _LAYER
        return {_LAYER_III: "audio/mpeg", _NO_LAYER: "audio/aac"}.get(layer, "")
    return ""


def _is_text(data: bytes) -> bool:
    if data.translate(None, _NOT_IN_TEXT) != data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_svg(data: bytes) -> bool:
    """Whether bytes look like an SVG image."""
    return _SVG.search(data[:_SNIFFED]) is not None


def is_data_url(url: str) -> bool:
    """Whether a URL contains its content."""
    return url[:5].lower() == "data:"


def read_data_url(url: str, name: str = "") -> Content | str:
    """Returns the content of a `data:` URL, or why it has none that can be read.

    The whole of the data is decoded only if its beginning does not tell what it is.
    """
    head = _DATA_URL.match(url[:_LONGEST_HEAD])
    if head is None:
        return "its URL is not of the form data:type;base64,…"
    if ";base64" not in head["options"].lower():
        return "its data is not in base64"
    return read_base64(url[head.end() :], name, head["type"])


def read_base64(data: str, name: str = "", claimed: str = "") -> Content | str:
    """Returns the content of base64, as `read_data_url` does."""
    if len(data) > 2 * MAX_CONTENT:
        return too_large()
    if not is_base64(data):
        data = data.translate(_SPACE).translate(_URL_SAFE).rstrip("=")
        data += "=" * (-len(data) % 4)
        if not is_base64(data):
            return "its data is not valid base64"
    if not data:
        return "it is empty"
    if base64_size(data) > MAX_CONTENT:
        return too_large()
    try:
        sniffed = base64.b64decode(data[:_SNIFFED], validate=True)
        found = media_type(sniffed, name, claimed)
        if len(data) > _SNIFFED and found in {OCTETS, *TEXTS}:
            found = media_type(base64.b64decode(data), name, claimed)
    except binascii.Error:
        return "its data is not valid base64"
    return Content(found, data, claimed.lower()[:100])


def too_large() -> str:
    """Returns why a content that is too large is refused."""
    return f"it is larger than {MAX_CONTENT // 1024 // 1024} MiB"


def content_of(data: bytes, name: str = "", claimed: str = "") -> Content:
    """Returns bytes as a content; raises `InvalidInput` for none, and for too many."""
    if not data:
        raise InvalidInput("The file is empty; give it some bytes.")
    if len(data) > MAX_CONTENT:
        raise InvalidInput(f"The file {name!r} is refused: {too_large()}.")
    return Content(media_type(data, name, claimed), base64.b64encode(data).decode(), claimed)


def base64_size(data: str) -> int:
    """Returns how many bytes canonical base64 stands for."""
    return len(data) // 4 * 3 - data.endswith("=") - data.endswith("==")


def is_base64(data: str) -> bool:
    """Whether `data` is canonical base64."""
    if len(data) % 4 or not data.isascii():
        return False
    return not data.rstrip("=").encode().translate(None, _ALPHABET) and not data.endswith("===")


def safe_name(name: str) -> str:
    """Returns the last part of a file name, without characters that mislead people or systems.

    Folders, control characters and marks that change the direction of a text are left out, so that
    a program that stores a file under this name stays in its folder.
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(one for one in last if unicodedata.category(one)[0] != "C")
    kept = _NOT_IN_NAMES.sub("_", kept).strip(" .")
    if len(kept) <= _MAX_NAME:
        return kept
    stem, dot, suffix = kept.rpartition(".")
    is_suffix = bool(dot) and len(suffix) < 20
    return f"{stem[: _MAX_NAME - len(suffix) - 1]}.{suffix}" if is_suffix else kept[:_MAX_NAME]
