"""Files, images and audio as parts of messages and of outputs.

The content of a part is one of three: bytes in a `data:` URL, a URL that the provider loads, or the
id of a file that the runtime keeps. `media_type` and `size` (in bytes) describe the bytes; they are
empty for a URL, which treadle does not read.
"""

import re
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Final, Literal, cast, get_args

from msgspec import Struct

from treadle.domain.arguments import is_mapping, require_text, shown
from treadle.domain.media import (
    IMAGES,
    MAX_CONTENT,
    Content,
    base64_size,
    content_of,
    is_data_url,
    is_svg,
    read_base64,
    read_data_url,
    safe_name,
    too_large,
)
from treadle.domain.urls import masked_url
from treadle.errors import InvalidInput

ImageDetail = Literal["low", "high", "auto"]

FILE_ID: Final = re.compile(r"file_[0-9a-f]{64}")
"""The id of a file that a runtime keeps: the SHA-256 of its content."""

_DETAILS: Final = get_args(ImageDetail)
_WEB: Final = ("https://", "http://")
_MAX_URL: Final = (
    20_000  # OpenAI's limit is 20,971,520 characters with data, and no host takes more
)
# The names that the API of OpenAI gives to the formats of audio.
_FORMATS: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}


class InputImage(Struct, frozen=True, gc=False, tag="input_image", omit_defaults=True):
    """An image given to the model: a PNG, JPEG, GIF or WebP image.

    `image_url` is an https or a `data:` URL. Instead, `file_id` names a file that the runtime
    keeps. `detail` is how closely OpenAI's models look at it.
    """

    image_url: str = ""
    detail: ImageDetail = "auto"
    file_id: str = ""
    media_type: str = ""
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, *, detail: ImageDetail = "auto") -> "InputImage":
        """Returns an image of bytes; raises `InvalidInput` for bytes of another kind."""
        content = content_of(data)
        return image_part(content.url, detail)

    @classmethod
    def from_path(cls, path: str | PathLike[str], *, detail: ImageDetail = "auto") -> "InputImage":
        """Returns the image in a file of this machine, which it reads at once.

        Only a program can call this: no message that comes from outside names a path. Raises
        `InvalidInput` and `OSError`.
        """
        return cls.from_bytes(_read(path), detail=detail)


class InputFile(Struct, frozen=True, gc=False, tag="input_file", omit_defaults=True):
    """A file given to the model, such as a PDF document or a text.

    `file_data` is a `data:` URL. Instead, `file_url` is the URL of a file that the provider loads,
    or `file_id` names a file that the runtime keeps. `filename` has no folder.
    """

    file_data: str = ""
    filename: str = ""
    file_url: str = ""
    file_id: str = ""
    media_type: str = ""
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, filename: str = "", media_type: str = "") -> "InputFile":
        """Returns a file of bytes.

        The media type is told from the bytes; `filename` and `media_type` only choose between kinds
        of text. Raises `InvalidInput` without bytes, and for more than 50 MiB.
        """
        name = safe_name(filename)
        content = content_of(data, name, media_type)
        return InputFile(content.url, name, media_type=content.media_type, size=content.size)

    @classmethod
    def from_path(cls, path: str | PathLike[str]) -> "InputFile":
        """Returns a file of this machine, which it reads at once; see `InputImage.from_path`."""
        return cls.from_bytes(_read(path), fspath(path))


class InputAudio(Struct, frozen=True, gc=False, tag="input_audio", omit_defaults=True):
    """Audio given to the model, such as WAV or MP3.

    `audio_url` is a `data:` URL. Instead, `file_id` names a file that the runtime keeps.
    """

    audio_url: str = ""
    file_id: str = ""
    media_type: str = ""
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes) -> "InputAudio":
        """Returns audio of bytes; raises `InvalidInput` for bytes of another kind."""
        return audio_part(content_of(data).url)

    @classmethod
    def from_path(cls, path: str | PathLike[str]) -> "InputAudio":
        """Returns the audio in a file of this machine; see `InputImage.from_path`."""
        return cls.from_bytes(_read(path))


Media = InputImage | InputFile | InputAudio
"""A part that is not a text."""


def _read(path: str | PathLike[str]) -> bytes:
    # The one place of this package that reads a file: a constructor for programs, which nothing
    # that is decoded can reach.
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(MAX_CONTENT + 1)


def data_of(part: Media) -> str:
    """Returns the URL of a part: a `data:` URL, that of the web, or "" if it has a file id."""
    match part:
        case InputImage():
            return part.image_url
        case InputFile():
            return part.file_data or part.file_url
        case InputAudio():
            return part.audio_url


def described(part: Media, id: str, media_type: str, size: int, name: str = "") -> Media:
    """Returns a part that refers to a kept file; raises `InvalidInput` for one of another kind."""
    match part:
        case InputImage():
            if media_type not in IMAGES:
                raise InvalidInput(f"The file {id} is {media_type} and not an image.")
            return InputImage("", part.detail, id, media_type, size)
        case InputFile():
            return InputFile("", part.filename or name, "", id, media_type, size)
        case InputAudio():
            if not _is_audio(media_type):
                raise InvalidInput(f"The file {id} is {media_type} and not audio.")
            return InputAudio("", id, media_type, size)


def filled(part: Media, data: str) -> Media:
    """Returns a part that refers to a kept file as one with its content, in base64."""
    url = f"data:{part.media_type};base64,{data}"
    match part:
        case InputImage():
            return InputImage(url, part.detail, "", part.media_type, part.size)
        case InputFile():
            return InputFile(url, part.filename, "", "", part.media_type, part.size)
        case InputAudio():
            return InputAudio(url, "", part.media_type, part.size)


def media_part(part: Media) -> Media:
    """Returns a part that a caller constructed, checked; raises `InvalidInput`."""
    match part:
        case InputImage():
            return image_part(part.image_url, part.detail, part.file_id)
        case InputFile():
            return file_part(part.file_data, part.file_url, part.file_id, part.filename)
        case InputAudio():
            return audio_part(part.audio_url, part.file_id)


def media_in(fields: Mapping[str, object]) -> Media | None:
    """Returns the part in a mapping, of the form of Responses or of Chat Completions.

    None if it is of another type. Raises `InvalidInput`.
    """
    match fields.get("type"):
        case "image_url" | "input_image":
            image = fields.get("image_url")
            detail = fields.get("detail")
            if is_mapping(image):
                return image_part(image.get("url"), image.get("detail") or detail)
            return image_part(image, detail, fields.get("file_id"))
        case "file" | "input_file":
            nested = fields.get("file")
            file = nested if is_mapping(nested) else fields
            return file_part(
                file.get("file_data"),
                file.get("file_url"),
                file.get("file_id"),
                file.get("filename"),
            )
        case "input_audio":
            audio = fields.get("input_audio")
            if is_mapping(audio):
                return _encoded_audio(audio.get("data"), audio.get("format"))
            return audio_part(fields.get("audio_url"), fields.get("file_id"))
        case _:
            return None


def image_part(url: object, detail: object = None, file_id: object = None) -> InputImage:
    """Returns an image; raises `InvalidInput` unless it is one that models read."""
    if detail is not None and detail not in _DETAILS:
        raise InvalidInput(f"The detail of an image is {shown(detail)}; use {', '.join(_DETAILS)}.")
    wanted = cast("ImageDetail", detail or "auto")
    if file_id and not url:
        return InputImage(detail=wanted, file_id=_file_id(file_id))
    valid = _url("The URL of an image", url)
    if not is_data_url(valid):
        return InputImage(valid, wanted)
    content = _content(valid, "An image")
    if content.media_type not in IMAGES:
        raise InvalidInput(
            f"An image is refused: {_not_an_image(content)}; use PNG, JPEG, GIF or WebP, or send "
            "it as an InputFile."
        )
    return InputImage(content.url, wanted, media_type=content.media_type, size=content.size)


def _not_an_image(content: Content) -> str:
    if is_svg(content.decoded()[:1000]):
        return "SVG is a program that draws, and providers do not read it"
    return f"its bytes are {content.media_type}"


def file_part(
    data: object = None, url: object = None, file_id: object = None, filename: object = None
) -> InputFile:
    """Returns a file of base64, a `data:` URL, a URL or a file id; raises `InvalidInput`."""
    name = safe_name(require_text("filename", filename or ""))
    if file_id and not data and not url:
        return InputFile(filename=name, file_id=_file_id(file_id))
    if not data:
        valid = _url("file_url", url)
        if not is_data_url(valid):
            return InputFile(filename=name, file_url=valid)
        data = valid
    text = require_text("file_data", data)
    content = _content(text, "A file", name)
    return InputFile(content.url, name, media_type=content.media_type, size=content.size)


def audio_part(url: object, file_id: object = None) -> InputAudio:
    """Returns audio of a `data:` URL, a URL or a file id; raises `InvalidInput`."""
    if file_id and not url:
        return InputAudio(file_id=_file_id(file_id))
    valid = _url("The URL of audio", url)
    if not is_data_url(valid):
        return InputAudio(valid)
    return _audio(_content(valid, "Audio"))


def _encoded_audio(data: object, format: object) -> InputAudio:
    claimed = _FORMATS.get(format, "") if isinstance(format, str) else ""
    content = read_base64(require_text("The data of audio", data), claimed=claimed)
    if isinstance(content, str):
        raise InvalidInput(f"Audio is refused: {content}.")
    return _audio(content)


def _audio(content: Content) -> InputAudio:
    kind = content.media_type
    if not _is_audio(kind):
        raise InvalidInput(f"Audio is refused: its bytes are {kind}; use WAV or MP3.")
    return InputAudio(content.url, media_type=kind, size=content.size)


def _is_audio(kind: str) -> bool:
    # The containers of video are those of audio as well.
    return kind in {"video/mp4", "video/webm"} or kind.startswith("audio/")


def _content(url: str, what: str, name: str = "") -> Content:
    content = read_data_url(url, name) if is_data_url(url) else read_base64(url, name)
    if isinstance(content, str):
        raise InvalidInput(f"{what} is refused: {content}.")
    return content


def _url(name: str, url: object) -> str:
    """Returns the URL of a content; raises `InvalidInput` for one of this machine, such as file:"""
    valid = require_text(name, url)
    if is_data_url(valid):
        return valid
    if not valid.lower().startswith(_WEB):
        raise InvalidInput(
            f"{name} is {masked_url(valid)[:200]!r}; it must begin with https://, http:// or data:."
        )
    if len(valid) > _MAX_URL:
        raise InvalidInput(f"{name} has {len(valid):,} characters; the most is {_MAX_URL:,}.")
    return valid


def _file_id(file_id: object) -> str:
    valid = require_text("file_id", file_id)
    if FILE_ID.fullmatch(valid) is None:
        raise InvalidInput(
            f"file_id={shown(valid)} is not the id of a file of treadle; put the file into "
            "runtime.files first. Ids of files at a provider are not accepted."
        )
    return valid


def require_room(parts: Iterable[object]) -> None:
    """Raises `InvalidInput` if the contents of parts are too large together."""
    sizes = [base64_size(data_of(part)) for part in parts if isinstance(part, Media)]
    if sum(sizes) > MAX_CONTENT:
        raise InvalidInput(f"The files of the message are refused: together {too_large()}.")
