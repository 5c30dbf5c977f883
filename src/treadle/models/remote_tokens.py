"""The tokens that a provider sends to MCP servers: fetched for each request, and kept secret."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from msgspec.structs import replace

from treadle.domain.arguments import is_mapping
from treadle.domain.hosted_tools import SECRET_FIELDS, HostedTool, RemoteMCP
from treadle.models.api_key import current_key
from treadle.models.base import ModelRequest
from treadle.models.secrets import secrets_of


async def with_tokens(request: ModelRequest, seconds: float) -> ModelRequest:
    """Returns a request in which each token is a text.

    A function that returns one has that many seconds. Raises the kinds of `ModelError`.
    """
    hosted = [await _with_token(tool, seconds) for tool in request.hosted]
    return replace(request, hosted=tuple(hosted))


def tokens_of(request: ModelRequest) -> tuple[str, ...]:
    """Returns the secrets in the body of a request, the longest first."""
    found = {text for tool in request.hosted for text in _secrets(tool)}
    return tuple(sorted(found, key=len, reverse=True))


async def _with_token(tool: HostedTool, seconds: float) -> HostedTool:
    if not isinstance(tool, RemoteMCP) or isinstance(tool.token, str):
        return tool
    host = urlsplit(tool.url).hostname or ""
    return replace(tool, token=await current_key(tool.token, host, seconds))


def _secrets(tool: HostedTool) -> Iterator[str]:
    if not isinstance(tool, RemoteMCP):
        return
    given = {"token": tool.token, **{name: tool.extra.get(name) for name in SECRET_FIELDS}}
    headers = given.pop("headers")
    fields = {**given, **(headers if is_mapping(headers) else {})}
    yield from secrets_of({name: one for name, one in fields.items() if isinstance(one, str)})
