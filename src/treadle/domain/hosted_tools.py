"""Hosted tools: tools that the provider of a model runs, declared next to those of a program.

They are data: what differs between providers is in the wires. `extra` has further fields of the
tool at one provider, as its API documents them.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from treadle.domain.arguments import is_list, shown
from treadle.domain.urls import masked_url
from treadle.errors import InvalidTool

SECRET_FIELDS = frozenset({"headers", "authorization", "authorization_token"})
"""The fields in `extra` that may hold secrets."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,48}")


class WebSearch(Struct, frozen=True, kw_only=True):
    """Searches the web.

    - `allowed_domains`, `blocked_domains`: the only domains that are searched, or those that are
      not, such as `["example.com"]`; one of the two.
    - `max_uses`: the most searches of one response.
    - `extra`: further fields, such as `{"user_location": {"type": "approximate", "country": "FR"}}`
    """

    name: ClassVar[str] = "web_search"
    providers: ClassVar[str] = "OpenAI Responses, Anthropic Messages and Gemini"
    allowed_domains: Sequence[str] = ()
    blocked_domains: Sequence[str] = ()
    max_uses: int | None = None
    extra: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        _require_domains(self)


class WebFetch(Struct, frozen=True, kw_only=True):
    """Reads pages and documents of the web by their URLs.

    - `allowed_domains`, `blocked_domains`: the only domains that are read, or those that are not;
      one of the two.
    - `max_uses`: the most pages of one response.
    - `extra`: further fields, such as `{"citations": {"enabled": True}}` at Anthropic.
    """

    name: ClassVar[str] = "web_fetch"
    providers: ClassVar[str] = "Anthropic Messages and Gemini"
    allowed_domains: Sequence[str] = ()
    blocked_domains: Sequence[str] = ()
    max_uses: int | None = None
    extra: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        _require_domains(self)


class FileSearch(Struct, frozen=True, kw_only=True):
    """Searches files that were uploaded to the provider.

    - `stores`: the ids of its vector stores, or at Gemini the names of its file search stores.
    - `max_results`: the most results of one search.
    - `extra`: further fields, such as `filters` or `ranking_options` at OpenAI.
    """

    name: ClassVar[str] = "file_search"
    providers: ClassVar[str] = "OpenAI Responses and Gemini"
    stores: Sequence[str]
    max_results: int | None = None
    extra: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        _require_texts(self, "stores")
        _require_count(self, "max_results")
        if not self.stores:
            raise InvalidTool('FileSearch needs a store: FileSearch(stores=["vs_…"]).')


class CodeInterpreter(Struct, frozen=True, kw_only=True):
    """Runs code that the model writes, in a container of the provider.

    - `container`: the id of a container; by default the provider makes one.
    - `files`: the ids of files of the provider that a new container has.
    - `extra`: further fields.
    """

    name: ClassVar[str] = "code_interpreter"
    providers: ClassVar[str] = "OpenAI Responses, Anthropic Messages and Gemini"
    container: str = ""
    files: Sequence[str] = ()
    extra: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        _require_texts(self, "files")
        if self.container and self.files:
            raise InvalidTool(
                "CodeInterpreter takes container or files: a container that exists has its files."
            )


class RemoteMCP(Struct, frozen=True, kw_only=True):
    """The tools of an MCP server that the provider calls; see also `treadle.mcp.MCPTools`.

    - `url`: of the server, which the provider must reach.
    - `name`: names the server for the model, at most 48 letters, digits, _ and -.
    - `token`: sent to the server as a bearer token by the provider, or a function that returns the
      current one for each request, plain or async, such as `treadle.mcp.OAuthToken`.
    - `allowed_tools`: the only tools of the server that the model may call.
    - `needs_approval`: whether a person approves each call, or the names of the tools whose calls
      need it. Approvals need a thread, and OpenAI Responses.
    - `extra`: further fields, such as `headers` at OpenAI.

    The provider sends arguments, which may contain parts of the conversation, to the server, and
    its answers to the model. Use servers that you trust.
    """

    providers: ClassVar[str] = "OpenAI Responses and Anthropic Messages"
    url: str
    name: str
    token: str | Callable[[], str | Awaitable[str]] = ""
    allowed_tools: Sequence[str] = ()
    needs_approval: bool | Sequence[str] = True
    extra: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        _require_texts(self, "allowed_tools")
        if not isinstance(self.needs_approval, bool):
            _require_texts(self, "needs_approval")
        if not _is_name(self.name):
            raise InvalidTool(
                f"RemoteMCP.name is {shown(self.name)}; use at most 48 letters, digits, _ and -."
            )
        if not _is_url(self.url):
            raise InvalidTool(
                f"RemoteMCP.url is {_shown_url(self.url)}; use https://host/path, without a user."
            )

    def __repr__(self) -> str:
        return f"RemoteMCP(url={urlsplit(self.url).hostname!r}, name={self.name!r})"


HostedTool = WebSearch | WebFetch | FileSearch | CodeInterpreter | RemoteMCP


def remote_call_name(server: str, tool: str) -> str:
    """Returns the name of a call of an MCP server's tool that waits for an approval."""
    return f"{server}_{re.sub(r'[^a-zA-Z0-9_-]', '_', tool)}"[:64]


def described(tool: HostedTool) -> Mapping[str, object]:
    """Returns a tool as part of the definition of an agent, without its secrets."""
    fields = msgspec.structs.asdict(tool)
    fields.pop("token", None)
    if isinstance(tool, RemoteMCP):
        fields["url"] = masked_url(tool.url)
    fields["extra"] = {name: tool.extra[name] for name in tool.extra if name not in SECRET_FIELDS}
    return {"type": type(tool).__name__, **fields}


def _require_domains(tool: WebSearch | WebFetch) -> None:
    _require_texts(tool, "allowed_domains")
    _require_texts(tool, "blocked_domains")
    _require_count(tool, "max_uses")
    if tool.allowed_domains and tool.blocked_domains:
        raise InvalidTool(
            f"{type(tool).__name__} takes allowed_domains or blocked_domains, not both."
        )


def _require_texts(tool: Struct, field: str) -> None:
    """Makes a field a tuple; raises `InvalidTool` unless it is a list of texts."""
    value: object = getattr(tool, field)
    texts = tuple(value) if is_list(value) else None
    if texts is None or not all(isinstance(one, str) and one for one in texts):
        raise InvalidTool(f"{type(tool).__name__}.{field} is {shown(value)}; pass a list of texts.")
    force_setattr(tool, field, texts)


def _require_count(tool: Struct, field: str) -> None:
    value: object = getattr(tool, field)
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidTool(f"{type(tool).__name__}.{field} is {shown(value)}; use 1 or more.")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _shown_url(url: object) -> str:
    return repr(masked_url(url)[:200]) if isinstance(url, str) else shown(url)


def _is_url(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_private = parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
    is_web = parts.scheme in {"http", "https"}
    return is_web and is_private and bool(parts.hostname) and "@" not in parts.netloc
