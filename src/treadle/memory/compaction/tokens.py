"""Counts the tokens of items, by a tokenizer or by an estimate from the length of their texts.

The estimate is meant to be too high rather than too low: 3 bytes per token, whereas English prose
has 4 to 5 and code has 3 to 4. Counts of the provider correct it; see `gauge`.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from treadle.domain.files import InputAudio, InputFile, InputImage, data_of
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
)
from treadle.domain.media import TEXTS, base64_size
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.errors import ConfigurationError
from treadle.models.base import ModelRequest
from treadle.tools.failure import explain_failure, reraise_interrupt

Count = Callable[[str], int]
"""A tokenizer: returns the number of tokens of a text."""

BYTES_PER_TOKEN = 3
ITEM_TOKENS = 6
"""The tokens around the text of an item: its role, its ids, the marks of its start and end."""

HOSTED_TOOL_TOKENS = 400
"""The tokens with which a provider describes a hosted tool to its model."""

IMAGE_TOKENS = 1600
SMALL_IMAGE_TOKENS = 100
MIN_FILE_TOKENS = 200
MAX_FILE_TOKENS = 200_000
"""Providers read at most some hundred pages of a document."""
BYTES_PER_DOCUMENT_TOKEN = 25
"""A page of a PDF has some 50 KB, and 1,500 to 3,000 tokens as text and image."""
BYTES_PER_AUDIO_TOKEN = 1600
"""Compressed audio has 16 KB a second, which are 10 tokens; wave files are up to ten times larger.

https://platform.openai.com/docs/guides/realtime-costs
"""

_TEXTS = (InputText, OutputText)


def text_tokens(text: str, count: Count | None = None) -> int:
    """Returns the tokens of a text, by `count` or by estimate.

    Raises `ConfigurationError` if `count` fails or does not return a number of tokens.
    """
    if count is None:
        size = len(text if text.isascii() else text.encode(errors="surrogatepass"))
        return -(-size // BYTES_PER_TOKEN)
    try:
        counted = count(text)
    except BaseException as error:  # foreign code may raise anything
        reraise_interrupt(error)
        raise ConfigurationError(
            f"count= of the agent's context failed: {explain_failure(error)}"
        ) from error
    if not isinstance(counted, int) or counted < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"count= of the agent's context must return a number of tokens, not {counted!r:.100}."
        )
    return counted


def item_tokens(item: Item, count: Count | None = None) -> int:
    """Returns the tokens of an item; raises as `text_tokens`."""
    # The most frequent kinds first: a restart goes through thousands of items.
    if isinstance(item, FunctionCallOutput):
        output = item.output
        tokens = text_tokens(output, count) if isinstance(output, str) else _parts(output, count)
    elif isinstance(item, FunctionCall):
        tokens = text_tokens(item.name + item.arguments, count)
    elif isinstance(item, Message):
        tokens = _parts(item.content, count)
    elif isinstance(item, Reasoning):
        # Encrypted reasoning was text, and the provider reads it again.
        tokens = text_tokens(item.encrypted_content or item.text, count)
    else:
        tokens = text_tokens(bytes(item.raw).decode(errors="replace"), count)
    return tokens + ITEM_TOKENS


def items_tokens(items: Sequence[Item], count: Count | None = None) -> list[int]:
    """Returns the tokens of each item; raises as `text_tokens`."""
    if count is not None:
        return [item_tokens(item, count) for item in items]
    return [_estimated(item) for item in items]


def _estimated(item: Item) -> int:
    """Returns the same as `item_tokens`, faster for the most frequent items."""
    if isinstance(item, FunctionCallOutput):
        text = item.output
        if isinstance(text, str) and text.isascii():
            return -(-len(text) // BYTES_PER_TOKEN) + ITEM_TOKENS
    elif isinstance(item, FunctionCall):
        text = item.arguments
        if text.isascii() and item.name.isascii():
            return -(-(len(item.name) + len(text)) // BYTES_PER_TOKEN) + ITEM_TOKENS
    elif isinstance(item, Message) and len(item.content) == 1:
        part = item.content[0]
        if isinstance(part, _TEXTS) and part.text.isascii():
            return -(-len(part.text) // BYTES_PER_TOKEN) + ITEM_TOKENS
    return item_tokens(item)


def _parts(parts: Iterable[ContentPart], count: Count | None) -> int:
    tokens = 0
    for part in parts:
        if isinstance(part, _TEXTS):
            tokens += text_tokens(part.text, count)
        elif isinstance(part, Refusal):
            tokens += text_tokens(part.refusal, count)
        elif isinstance(part, InputImage):
            tokens += SMALL_IMAGE_TOKENS if part.detail == "low" else IMAGE_TOKENS
        else:
            tokens += _file_tokens(part)
    return tokens


def _file_tokens(part: InputFile | InputAudio) -> int:
    """Returns the tokens of a file, estimated from its size; a tokenizer counts texts only."""
    size = part.size or base64_size(data_of(part))
    if isinstance(part, InputAudio):
        per_token = BYTES_PER_AUDIO_TOKEN
    else:
        is_text = part.media_type in TEXTS
        per_token = BYTES_PER_TOKEN if is_text else BYTES_PER_DOCUMENT_TOKEN
    return min(max(-(-size // per_token), MIN_FILE_TOKENS), MAX_FILE_TOKENS)


def frame_tokens(request: ModelRequest, count: Count | None = None) -> int:
    """Returns the tokens of a request without its items; raises as `text_tokens`."""
    tokens = ITEM_TOKENS + text_tokens(request.instructions, count)
    tokens += sum(_schema(tool, count) for tool in request.tools)
    tokens += HOSTED_TOOL_TOKENS * len(request.hosted)
    return tokens + (_schema(request.output, count) if request.output is not None else 0)


def _schema(schema: ToolSchema | OutputSchema, count: Count | None) -> int:
    return ITEM_TOKENS + text_tokens(msgspec.json.encode(schema).decode(), count)
