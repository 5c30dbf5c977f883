"""The address of a server: a command to start, or a URL to connect to."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from treadle.domain.urls import MASK, SECRET_NAME, keys_in_url, may_be_key
from treadle.errors import ConfigurationError

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z-]+")
_MIN_SECRET = 4


@dataclass(frozen=True)
class CommandAddress:
    """A program to start; messages go over its standard input and output.

    https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#stdio
    """

    # Commands, environments and URLs may contain secrets, so the repr shows none of them.
    program: str = field(repr=False)
    arguments: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    folder: Path | None = field(repr=False)

    @property
    def name(self) -> str:
        """The program without its folder."""
        return Path(self.program).name

    def without_secrets(self, text: str) -> str:
        """Returns `text` with values of the environment and keys in arguments as asterisks."""
        return _without(text, [*self.env.values(), *_keys_in(self.arguments)])


@dataclass(frozen=True)
class UrlAddress:
    """A running server, reached over HTTP.

    https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The host, with the port if there is one."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def shown_url(self) -> str:
        """The URL without what may contain keys: only scheme, host and port."""
        return f"{urlsplit(self.url).scheme}://{self.name}/"

    @property
    def url_without_credentials(self) -> str:
        """The URL without user and password."""
        return urlsplit(self.url)._replace(netloc=self.name).geturl()

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The user and the password in the URL."""
        parts = urlsplit(self.url)
        if parts.username is None and parts.password is None:
            return None
        return unquote(parts.username or ""), unquote(parts.password or "")

    def without_secrets(self, text: str) -> str:
        """Returns `text` with the values of the headers, and the URL, replaced by asterisks."""
        values = [self.url, *keys_in_url(self.url)]
        for value in self.headers.values():
            values += [value, *value.split()]  # `Bearer …` may come back without the first word
        return _without(text, values)


Address = CommandAddress | UrlAddress


def parse_address(
    server: str | Sequence[str],
    *,
    env: Mapping[str, str],
    headers: Mapping[str, str],
    folder: str | Path | None,
) -> Address:
    """Returns the address that a user wrote as a command, its words, or a URL.

    Raises `ConfigurationError` for anything else, and for options of the other kind.
    """
    if not isinstance(server, str):
        return _command(tuple(server), env, headers, folder)
    scheme = _SCHEME.match(server.strip())
    if scheme is None:
        return _command(_words(server), env, headers, folder)
    return _url(server.strip(), scheme[0].lower(), env, headers, folder)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigurationError(
            f"The command of an MCP server cannot be split into words ({error}); give it as a "
            'list: MCPTools(["program", "argument"]).'
        ) from error


def _command(
    words: tuple[object, ...],
    env: Mapping[str, str],
    headers: Mapping[str, str],
    folder: str | Path | None,
) -> CommandAddress:
    if not words or not words[0]:
        raise ConfigurationError(
            'The command of an MCP server is empty; give MCPTools("program argument …") or a URL.'
        )
    texts = [word for word in words if isinstance(word, str) and "\0" not in word]
    if len(texts) < len(words):
        raise ConfigurationError("The words of an MCP server's command must be texts without NUL.")
    if headers:
        raise ConfigurationError(
            "headers are for an MCP server with a URL; a command takes env={…}."
        )
    for key, value in _texts(env, "env"):
        if not key or "=" in key or "\0" in key + value:
            raise ConfigurationError(f"{key!r} cannot be set in the environment of an MCP server.")
    return CommandAddress(
        texts[0], tuple(texts[1:]), dict(env), None if folder is None else Path(folder)
    )


def _url(
    url: str,
    scheme: str,
    env: Mapping[str, str],
    headers: Mapping[str, str],
    folder: str | Path | None,
) -> UrlAddress:
    if scheme not in {"http://", "https://"}:
        raise ConfigurationError(
            f"An MCP server cannot be reached by {scheme}…; give a URL with https:// or http://, "
            "or a command."
        )
    if env or folder is not None:
        raise ConfigurationError(
            "env and folder are for an MCP server that is started by a command; a URL takes "
            "headers={…}."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        raise ConfigurationError("The URL of an MCP server is not of the form https://host/path.")
    for key, value in _texts(headers, "headers"):
        if not (_HEADER_NAME.fullmatch(key) and value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"The header {key!r} of an MCP server contains characters that are not allowed in "
                "headers; check the source of its name and value."
            )
    return UrlAddress(url, dict(headers))


def _texts(mapping: Mapping[str, str], option: str) -> list[tuple[str, str]]:
    entries: list[tuple[object, object]] = list(mapping.items())
    texts = [(k, v) for k, v in entries if isinstance(k, str) and isinstance(v, str)]
    if len(texts) < len(entries):
        raise ConfigurationError(f"{option} of an MCP server must map strings to strings.")
    return texts


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:  # masking a shorter one would make every message unreadable
            text = text.replace(secret, MASK)
    return text


def _keys_in(arguments: Sequence[str]) -> Iterator[str]:
    """Yields what of the arguments of a command may be a key."""
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if before.startswith("-") and "=" not in before and SECRET_NAME.search(before):
            yield from (argument, *argument.split())
        elif equals and SECRET_NAME.search(name):
            yield from (value, *value.split())
        elif _SCHEME.match(argument):
            yield from keys_in_url(argument)
        elif may_be_key(argument):
            yield from (argument, *filter(may_be_key, argument.split()))
        before = argument
