"""Contents: a conversation as turns of user and model, for the Gemini API.

https://ai.google.dev/api/caching#Content
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, assert_never
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from treadle.domain.files import InputAudio, InputFile, InputImage, Media
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)
from treadle.domain.media import PDF, TEXTS, Content, type_by_name
from treadle.models.wire.conversation import Entry, Response, as_user, is_system
from treadle.models.wire.media import MediaRules, WebContent, file_name, file_text, no_media
from treadle.models.wire.sendable import (
    CONTINUE,
    NO_INPUT,
    Changes,
    call_id,
    is_json_object,
    object_arguments,
    tool_name,
    utf8,
)

Part = dict[str, object]
Role = Literal["user", "model"]

SIGNATURE = "thought_signature"
"""In the provider fields of a call: the signature of the thought that led to it."""
SIGNATURES = "thought_signatures"
"""In the provider fields of a message: pieces of its text as [start, end, signature]."""
WIRE_ID = "id"
"""In the provider fields of a call: its id, which the provider may repeat or leave out."""

_IMAGES = frozenset({"image/png", "image/jpeg", "image/webp"})
MEDIA = MediaRules(
    image_types=_IMAGES,
    files=frozenset({PDF}) | TEXTS,
    audio=frozenset(
        {"audio/wav", "audio/mpeg", "audio/aac", "audio/ogg", "audio/flac", "audio/mp4"}
    ),
)
"""https://ai.google.dev/gemini-api/docs/document-processing, …/image-understanding, …/audio"""

# "Function call `look` in the `2.` content block is missing a `thought_signature`": this value in
# its place skips the check, for calls that another model wrote.
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_UNCHECKED = "skip_thought_signature_validator"
# What a function response may contain of models that can read media in it.
# https://ai.google.dev/gemini-api/docs/function-calling#multimodal
_IN_OUTPUTS = _IMAGES | {PDF}
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_NAME = 64
# What a response tells about a search is not a part of it, and is not sent back.
_METADATA = (b'{"groundingMetadata"', b'{"urlContextMetadata"')
_FILES_FOLLOW = "The files are in the next message."


class GeminiContent(Struct):
    """The parts of one turn; `sources` is the item that each is made of, None for no item."""

    role: Role
    parts: list[Part | msgspec.Raw]
    sources: list[Item | None]
    is_closed: bool = False

    def encoded(self) -> Part:
        """Returns the content as the API reads it."""
        return {"role": self.role, "parts": self.parts}


def function_name(name: str) -> str:
    """Returns the name of a tool as the API takes it: it begins with a letter or an underscore."""
    if name[:1].isalpha() or name.startswith("_"):
        return name
    return f"_{name}"[:_LONGEST_NAME]


class Contents:
    """Makes the contents of one request to `provider`.

    `is_old` are models up to 2.5: they check no signatures, and read no media in outputs. Reasoning
    and items of other providers are left out, and so is reasoning without a signature.
    """

    def __init__(self, provider: str, changes: Changes, *, is_old: bool) -> None:
        self.contents: list[GeminiContent] = []
        self._provider = provider
        self._changes = changes
        self._is_old = is_old

    def encode(self, entries: Sequence[Entry]) -> list[GeminiContent]:
        """Returns the contents of a conversation."""
        for entry in entries:
            if isinstance(entry, Response):
                self._response(entry)
            elif not is_system(entry):
                self._add("user", entry, self._parts(entry.content, entry))
            elif entry.text.strip():
                # The API takes system messages only as the instruction of the whole request.
                self._add("user", entry, self._parts(as_user(entry).content, entry))
        if not self.contents:
            self._add("user", None, [_text(NO_INPUT)])
        elif self.contents[-1].role == "model":
            self._add("user", None, [_text(CONTINUE)])
        return self.contents

    def _add(self, role: Role, item: Item | None, parts: Sequence[Part | msgspec.Raw]) -> None:
        if not parts:
            return
        if not self.contents and role == "model":
            # "Please ensure that function call turn comes immediately after a user turn or after a
            # function response turn."
            self._add("user", None, [_text(NO_INPUT)])
        last = self.contents[-1] if self.contents else None
        if last is None or last.role != role or last.is_closed:
            last = GeminiContent(role, [], [])
            self.contents.append(last)
        last.parts += parts
        last.sources += [item] * len(parts)

    def _response(self, response: Response) -> None:
        is_first = True
        for item in response.items:
            match item:
                case Message():
                    self._add("model", item, self._said(item))
                case FunctionCall():
                    self._add("model", item, [self._call(item, is_first=is_first)])
                    is_first = False
                case Reasoning():
                    if item.provider == self._provider:
                        self._add("model", item, _thought(item))
                case ProviderItem():
                    self._add("model", item, self._hosted(item))
                case _ as unreachable:
                    assert_never(unreachable)
        if response.outputs:
            self._outputs(response)

    def _said(self, message: Message) -> list[Part | msgspec.Raw]:
        where = "a message of the assistant"
        parts = [
            _text(no_media(part, message, self._changes, where))
            if isinstance(part, Media)
            else _text(_text_of(part))
            for part in message.content
        ]
        signed = _pieces(self._fields(message).get(SIGNATURES))
        if signed and all(isinstance(part, OutputText) for part in message.content):
            return list(_signed(message.text, signed))
        return [part for part in parts if str(part["text"]).strip()]

    def _parts(self, parts: Sequence[ContentPart], item: Item) -> list[Part]:
        """The parts; blank text is left out."""
        found: list[Part] = []
        for part in parts:
            if isinstance(part, Media):
                found.append(self._media(part, item))
            elif (text := _text_of(part)).strip():
                found.append(_text(text))
        return found

    def _media(self, part: Media, item: Item) -> Part:
        return _media_part(part, MEDIA.checked(part, item, self._changes))

    def _call(self, call: FunctionCall, *, is_first: bool) -> Part:
        fields = self._fields(call)
        function: Part = {
            "name": function_name(tool_name(call, self._changes)),
            "args": msgspec.Raw(object_arguments(call, self._changes).encode()),
        }
        if wire_id := self._wire_id(call):
            function["id"] = wire_id
        part: Part = {"functionCall": function}
        signature = fields.get(SIGNATURE)
        if isinstance(signature, str):
            part["thoughtSignature"] = signature
        elif is_first and not self._is_old:
            part["thoughtSignature"] = _UNCHECKED
        return part

    def _wire_id(self, call: FunctionCall) -> str:
        """Returns the id that call and output have on the wire.

        Older models know no ids: their calls and outputs are told apart by their order.
        """
        found = self._fields(call).get(WIRE_ID)
        if isinstance(found, str):
            return found
        return "" if self._is_old else call_id(call.call_id, _CALL_ID)

    def _outputs(self, response: Response) -> None:
        """Adds the outputs as a content of their own, with as many parts as there are calls.

        "Please ensure that the number of function response parts is equal to the number of function
        call parts of the function call turn." What does not fit into an output follows.
        """
        calls = {item.call_id: item for item in response.items if isinstance(item, FunctionCall)}
        content = GeminiContent("user", [], [], is_closed=True)
        self.contents.append(content)
        for output in response.outputs:
            call = calls[output.call_id]
            # The change of its name is noted with the call.
            name = function_name(tool_name(call, Changes()))
            part, following = self._output(output)
            found: Part = {"name": name, **part}
            if wire_id := self._wire_id(call):
                found["id"] = wire_id
            content.parts.append({"functionResponse": found})
            content.sources.append(output)
            self._add("user", output, following)

    def _output(self, output: FunctionCallOutput) -> tuple[Part, list[Part]]:
        """Returns the fields of a function response, and the parts that have to follow it."""
        text, inside, following = output.text, list[Part](), list[Part]()
        for part in () if isinstance(output.output, str) else output.output:
            if not isinstance(part, Media):
                continue
            found = MEDIA.checked(part, output, self._changes)
            one = _media_part(part, found)
            if "text" in one:
                text = f"{text}\n{one['text']}" if text else str(one["text"])
            elif not self._is_old and _is_in_outputs(found):
                inside.append(one)
            else:
                following.append(one)
        if following and not text.strip():
            text = _FILES_FOLLOW
        fields: Part = {"response": {"error" if output.is_error else "output": text}}
        return fields | ({"parts": inside} if inside else {}), following

    def _hosted(self, item: ProviderItem) -> Sequence[msgspec.Raw]:
        if item.provider != self._provider or bytes(item.raw).startswith(_METADATA):
            return []
        if is_json_object(item.raw):
            return [item.raw]
        text = "An item of the provider that is not a JSON object is left out."
        self._changes.note(item, "provider_item", text)
        return []

    def _fields(self, item: Message | FunctionCall) -> Mapping[str, object]:
        fields = item.provider_fields
        return {} if fields is None else fields.of(self._provider)


def _text(text: str) -> Part:
    return {"text": text}


def _text_of(part: InputText | OutputText | Refusal) -> str:
    return part.refusal if isinstance(part, Refusal) else part.text


def _thought(item: Reasoning) -> list[Part]:
    signature = item.encrypted_content
    if not signature:
        return []
    if not item.text:
        return [{"text": "", "thoughtSignature": signature}]
    return [{"text": item.text, "thought": True, "thoughtSignature": signature}]


class _Piece(Struct, frozen=True, array_like=True):
    """A signed piece of a text."""

    start: int
    end: int
    signature: str


def _pieces(value: object) -> Sequence[_Piece]:
    """Returns the signed pieces of a text; none of a value that a program made up."""
    try:
        return msgspec.convert(value or [], list[_Piece])
    except msgspec.ValidationError:
        return ()


def _signed(text: str, pieces: Sequence[_Piece]) -> list[Part]:
    """Returns a text in the parts it was signed in, which must not be joined with others."""
    parts: list[Part] = []
    end = 0
    for piece in pieces:
        if between := text[end : piece.start]:
            parts.append(_text(between))
        parts.append({"text": text[piece.start : piece.end], "thoughtSignature": piece.signature})
        end = piece.end
    if rest := text[end:]:
        parts.append(_text(rest))
    return parts


def _media_part(part: Media, found: WebContent | Content | str) -> Part:
    if isinstance(found, str):
        return _text(found)
    if isinstance(found, WebContent):
        return {"fileData": {"fileUri": found.url, "mimeType": _type_of(part, found.url)}}
    if isinstance(part, InputFile) and (text := file_text(found)) is not None:
        return _text(f'<file name="{utf8(file_name(part, found))}">\n{text}\n</file>')
    return {"inlineData": {"mimeType": found.media_type, "data": found.data}}


def _type_of(part: Media, url: str) -> str:
    """Returns the media type of a URL by the end of its path: the API requires one."""
    guessed = type_by_name(urlsplit(url).path)
    match part:
        case InputImage():
            return guessed if guessed in _IMAGES else "image/jpeg"
        case InputFile():
            return guessed or PDF
        case InputAudio():
            return guessed or "audio/mpeg"


def _is_in_outputs(found: WebContent | Content | str) -> bool:
    return isinstance(found, Content) and found.media_type in _IN_OUTPUTS
