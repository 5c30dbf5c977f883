"""The tokens that a provider sends to MCP servers: fetched for each request, and kept secret."""

from collections.abc import Iterable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from treadle.domain.arguments import is_mapping
from treadle.domain.hosted_tools import SECRET_FIELDS, HostedTool, RemoteMCP
from treadle.domain.items import HostedCall, ProviderItem
from treadle.domain.urls import MASK, keys_in_url
from treadle.models.api_key import current_key
from treadle.models.base import ModelEvent, ModelRequest
from treadle.models.secrets import long_enough, secrets_of, spellings
from treadle.streaming.demux import HostedCallProgress, ItemFinished

S = TypeVar("S")


async def with_tokens(request: ModelRequest, seconds: float) -> ModelRequest:
    """Returns a request in which each token is a text.

    A function that returns one has that many seconds. Raises the kinds of `ModelError`.
    """
    hosted = [await _with_token(tool, seconds) for tool in request.hosted]
    return replace(request, hosted=tuple(hosted))


def tokens_of(request: ModelRequest) -> tuple[str, ...]:
    """Returns the secrets in the body of a request, the longest first."""
    found = {text for tool in request.hosted for text in _secrets(tool)}
    return long_enough(found)


def without_secrets(event: ModelEvent, secrets: Iterable[str]) -> ModelEvent:
    """Returns an event whose hosted call does not repeat a secret, as errors of servers may."""
    match event:
        case HostedCallProgress(call):
            return HostedCallProgress(_masked(call, HostedCall, secrets))
        case ItemFinished(item=ProviderItem() as item):
            return replace(event, item=_masked(item, ProviderItem, secrets))
        case _:
            return event


def _masked(value: S, kind: type[S], secrets: Iterable[str]) -> S:
    encoded = masked = msgspec.json.encode(value)
    for spelled in (one for secret in secrets for one in spellings(secret)):
        masked = masked.replace(spelled, MASK.encode())
    return value if masked == encoded else msgspec.json.decode(masked, type=kind)


async def _with_token(tool: HostedTool, seconds: float) -> HostedTool:
    if not isinstance(tool, RemoteMCP) or isinstance(tool.token, str):
        return tool
    host = urlsplit(tool.url).hostname or ""
    return replace(tool, token=await current_key(tool.token, host, seconds))


def _secrets(tool: HostedTool) -> Iterator[str]:
    if not isinstance(tool, RemoteMCP):
        return
    yield from keys_in_url(tool.url)
    given = {"token": tool.token, **{name: tool.extra.get(name) for name in SECRET_FIELDS}}
    headers = given.pop("headers")
    fields = {**given, **(headers if is_mapping(headers) else {})}
    yield from secrets_of({name: one for name, one in fields.items() if isinstance(one, str)})
