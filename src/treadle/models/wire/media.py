"""Images of a request: their bytes must be what they claim to be."""

import base64
import binascii
import re

from msgspec import Struct

from treadle.domain.items import InputImage, Item
from treadle.models.wire.sendable import Changes

_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<options>(?:;[^;,]*)*),", re.IGNORECASE)
_WEB_URL = re.compile(r"https?://[^\s]+", re.IGNORECASE)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = str.maketrans("-_", "+/")
_SPACE = str.maketrans("", "", " \t\r\n")
# The formats that the vision guides of OpenAI, Anthropic and Mistral name.
_FORMATS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_HEAD = 32  # characters: enough for each of these marks
_KIND = "a PNG, JPEG, GIF or WebP image"


class WebImage(Struct, frozen=True):
    """An image that the provider loads itself."""

    url: str


class DataImage(Struct, frozen=True):
    """An image inside the request, in base64."""

    media_type: str
    data: str

    @property
    def url(self) -> str:
        """The `data:` URL."""
        return f"data:{self.media_type};base64,{self.data}"


def checked_image(
    image: InputImage, item: Item, changes: Changes, max_chars: int = 0, *, https: bool = False
) -> WebImage | DataImage | str:
    """Returns the image of an item, or the text that stands in its place.

    Providers refuse a request for good in whose history an image is empty, is none, or is of
    another type than it claims ("Image does not match the provided media type").

    `max_chars` is the most base64 characters that the API accepts; 0 is no limit. With `https` it
    loads no `http:` URL.
    """
    found = _read(image.image_url)
    if isinstance(found, DataImage):
        if max_chars and len(found.data) > max_chars:
            problem = f"it is larger than the {max_chars:,} base64 characters that the API accepts"
            return _left_out(item, changes, problem)
        claimed = _DATA_URL.match(image.image_url)
        if claimed is not None and claimed["type"].lower() != found.media_type:
            text = f"An image that claims to be {claimed['type'][:50]!r} is {found.media_type}."
            changes.note(item, "media_type", text)
        return found
    if isinstance(found, WebImage) and https and not found.url.lower().startswith("https:"):
        return _left_out(item, changes, "the API loads images from https: URLs only")
    return found if isinstance(found, WebImage) else _left_out(item, changes, found)


def no_image(item: Item, changes: Changes, where: str) -> str:
    """Returns the text in place of an image in a message in which the API takes none."""
    return _left_out(item, changes, f"the API takes none in {where}")


def _left_out(item: Item, changes: Changes, problem: str) -> str:
    changes.note(item, "image", f"An image is left out: {problem}.")
    return f"[An image was left out here: {problem}.]"


def _read(url: str) -> WebImage | DataImage | str:
    """Returns the image of a URL, or why it cannot be sent."""
    head = _DATA_URL.match(url)
    if head is None:
        return WebImage(url) if _WEB_URL.fullmatch(url) else "its URL is not of the form https://…"
    if ";base64" not in head["options"].lower():
        return "its data is not in base64"
    data = url[head.end() :]
    if not _is_base64(data):
        data = data.translate(_SPACE).translate(_URL_SAFE).rstrip("=")
        data += "=" * (-len(data) % 4)
        if not _is_base64(data):
            return "its data is not valid base64"
    kind = _kind(data)
    return DataImage(kind, data) if kind else f"its data is not {_KIND}"


def _is_base64(data: str) -> bool:
    if len(data) % 4 or not data.isascii():
        return False
    return not data.rstrip("=").encode().translate(None, _ALPHABET) and not data.endswith("===")


def _kind(data: str) -> str:
    try:
        head = base64.b64decode(data[:_HEAD], validate=True)
    except binascii.Error:
        return ""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in _FORMATS if head.startswith(mark)), "")
