"""Images, files and audio of a request: what an API reads, and what stands in place of the rest."""

from collections.abc import Set as AnySet

from msgspec import Struct

from treadle.domain.events import ChangeReason
from treadle.domain.files import InputAudio, InputFile, InputImage, Media, data_of
from treadle.domain.items import Item
from treadle.domain.media import (
    IMAGES,
    PDF,
    TEXT,
    TEXTS,
    Content,
    is_data_url,
    read_data_url,
)
from treadle.models.wire.sendable import Changes

_IMAGE = "a PNG, JPEG, GIF or WebP image"
_NONE: AnySet[str] = frozenset()
_SUFFIXES = {
    PDF: ".pdf",
    TEXT: ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "application/json": ".json",
}


class WebContent(Struct, frozen=True):
    """A content that the provider loads itself."""

    url: str


class MediaRules(Struct, frozen=True, kw_only=True):
    """What an API reads of images, files and audio.

    - `images`: whether it reads images. `image_types`, `files`, `audio`: the media types.
    - `loads_images`, `loads_files`: whether it loads them from URLs.
    - `max_image`: the most base64 characters of an image; 0 is no limit.
    - `https`: it loads no `http:` URL.
    """

    images: bool = True
    image_types: AnySet[str] = IMAGES
    files: AnySet[str] = _NONE
    audio: AnySet[str] = _NONE
    loads_images: bool = True
    loads_files: bool = True
    max_image: int = 0
    https: bool = False

    def read(self, part: Media) -> WebContent | Content | str:
        """Returns what is sent of a part, or why the API would refuse it.

        Providers refuse a request for good in whose history an image is empty, is none, or is of
        another type than it claims ("Image does not match the provided media type").
        """
        url = data_of(part)
        if isinstance(part, InputImage) and not self.images:
            return "the API reads no images"
        if part.file_id and not url:
            return "its content is not kept here"
        if not is_data_url(url):
            return self._loaded(part, url)
        content = read_data_url(url, part.filename if isinstance(part, InputFile) else "")
        if isinstance(content, str):
            return content
        match part:
            case InputImage():
                problem = self._image_problem(content)
            case InputFile():
                problem = _unless(content.media_type in self.files, content, "files of this kind")
            case InputAudio():
                problem = _unless(content.media_type in self.audio, content, "audio of this kind")
        return problem or content

    def _loaded(self, part: Media, url: str) -> WebContent | str:
        if not url.lower().startswith(("https://", "http://")) or any(map(str.isspace, url)):
            return "its URL is not of the form https://…"
        if self.https and not url.lower().startswith("https:"):
            return "the API loads images from https: URLs only"
        if isinstance(part, InputAudio):
            return "the API loads no audio from URLs"
        if isinstance(part, InputImage) and not self.loads_images:
            return "the API loads no images from URLs"
        if isinstance(part, InputFile) and not (self.loads_files and self.files):
            return "the API loads no files from URLs"
        return WebContent(url)

    def _image_problem(self, content: Content) -> str:
        if content.media_type not in IMAGES:
            return f"its data is not {_IMAGE}"
        if content.media_type not in self.image_types:
            return f"the API reads no images of this kind ({content.media_type})"
        if self.max_image and len(content.data) > self.max_image:
            return (
                f"it is larger than the {self.max_image:,} base64 characters that the API accepts"
            )
        return ""

    def refusal(self, part: Media) -> str:
        """Returns why the API does not read a part, as a sentence; "" if it does."""
        found = self.read(part)
        return f"{_name(part)} cannot be sent: {found}." if isinstance(found, str) else ""

    def checked(self, part: Media, item: Item, changes: Changes) -> WebContent | Content | str:
        """Returns what is sent of a part of `item`, or the text that stands in its place."""
        found = self.read(part)
        if isinstance(found, str):
            return left_out(part, item, changes, found)
        if isinstance(part, InputImage) and isinstance(found, Content):
            claimed, kind = found.claimed, found.media_type
            if claimed != kind:
                text = f"An image that claims to be {claimed[:50]!r} is {kind}."
                changes.note(item, "media_type", text)
        return found


def _unless(is_read: bool, content: Content, kind: str) -> str:
    return "" if is_read else f"the API reads no {kind} ({content.media_type})"


def no_media(part: Media, item: Item, changes: Changes, where: str) -> str:
    """Returns the text in place of a part in a message in which the API takes none."""
    return left_out(part, item, changes, f"the API takes none in {where}")


def left_out(part: Media, item: Item, changes: Changes, problem: str) -> str:
    """Notes that a part is left out, and returns the text in its place."""
    name, reason = _name(part), _reason(part)
    changes.note(item, reason, f"{name} is left out: {problem}.")
    return f"[{name} was left out here: {problem}.]"


def _reason(part: Media) -> ChangeReason:
    match part:
        case InputImage():
            return "image"
        case InputFile():
            return "file"
        case InputAudio():
            return "audio"


def _name(part: Media) -> str:
    match part:
        case InputImage():
            return "An image"
        case InputFile():
            return f"The file {part.filename!r}" if part.filename else "A file"
        case InputAudio():
            return "Audio"


def file_name(file: InputFile, content: Content) -> str:
    """Returns the name under which a file is sent: APIs tell kinds of text by its end."""
    return file.filename or f"file{_SUFFIXES.get(content.media_type, '')}"


def file_text(content: Content) -> str | None:
    """Returns the text of a file, or None if it is not a text."""
    return content.decoded().decode(errors="replace") if content.media_type in TEXTS else None
