from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from treadle.errors import ConfigurationError
from treadle.mcp.address import Address, CommandAddress, UrlAddress, parse_address


def parse(
    server: str | Sequence[str],
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Address:
    return parse_address(server, env=env or {}, headers=headers or {}, folder=folder)


def test_a_command() -> None:
    found = parse("/usr/bin/python server.py 'a b'", env={"A": "1"}, folder="/tmp")
    words = ("server.py", "a b")
    assert found == CommandAddress("/usr/bin/python", words, {"A": "1"}, Path("/tmp"))
    assert found.name == "python"
    assert parse(["python", "server.py", "a b"]) == CommandAddress("python", words, {}, None)


def test_a_command_may_have_a_url_for_an_argument() -> None:
    assert parse("server postgres://db") == CommandAddress("server", ("postgres://db",), {}, None)


def test_a_url() -> None:
    found = parse(" https://user:pass@example.com:8080/mcp?key=1 ", headers={"X-Key": "1"})
    url = "https://user:pass@example.com:8080/mcp?key=1"
    assert found == UrlAddress(url, {"X-Key": "1"})
    assert found.name == "example.com:8080"


def test_secrets_are_not_shown() -> None:
    for address in (
        parse("server --token sesame", env={"KEY": "sesame"}),
        parse("https://host/sesame?key=sesame", headers={"Authorization": "Bearer sesame"}),
    ):
        assert "sesame" not in repr(address)
        assert address.without_secrets("open sesame") == "open ***"
    assert address.without_secrets("no https://host/sesame?key=sesame") == "no ***"
    assert parse("server", env={"A": "1"}).without_secrets("1 of 11") == "1 of 11"


KEY = "sk-live-4f9a77c1e0b2"


@pytest.mark.parametrize(
    "words",
    [
        [KEY],
        ["--api-key", "sesame"],
        ["--api-key=sesame"],
        ["TOKEN=sesame"],
        ["--header", "Authorization: Bearer sesame"],
        [f"https://host/mcp?token={KEY}"],
        ["postgres://me:sesame@db/name"],
        [f"https://host/{KEY}/mcp"],
    ],
)
def test_keys_in_arguments_are_not_shown(words: list[str]) -> None:
    shown = parse(["server", *words]).without_secrets(f"bad key: {KEY} or sesame")
    assert "***" in shown
    assert not (KEY in shown and "sesame" in shown)


@pytest.mark.parametrize(
    "word",
    ["/srv/my files/server2", "server_v2.py", "@scope/package-name", "--transport", "./data1234"],
)
def test_other_arguments_are_shown(word: str) -> None:
    text = f"cannot open {word}"
    assert parse(["server", word]).without_secrets(text) == text


def test_the_url_that_libraries_see_has_no_keys() -> None:
    found = parse(f"https://us%40er:{KEY}@example.com:8080/{KEY}/mcp?key={KEY}")
    assert isinstance(found, UrlAddress)
    assert found.shown_url == "https://example.com:8080/"
    assert found.url_without_credentials == f"https://example.com:8080/{KEY}/mcp?key={KEY}"
    assert found.credentials == ("us@er", KEY)
    assert KEY not in found.without_secrets(f"{KEY} is used up")
    plain = parse("https://example.com/mcp")
    assert isinstance(plain, UrlAddress)
    assert plain.credentials is None
    assert plain.without_secrets("https://example.com and mcp") == "https://example.com and mcp"


@pytest.mark.parametrize("server", ["", "  ", [], [""], '""'])
def test_an_empty_command(server: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="is empty"):
        parse(server)


@pytest.mark.parametrize(
    ("server", "options", "problem"),
    [
        ("ws://host/mcp", {}, "cannot be reached by ws://…; give a URL with https://"),
        ("FILE:///tmp/x", {}, "cannot be reached by file://"),
        ("https://", {}, "not of the form https://host/path"),
        ("https:///mcp", {}, "not of the form"),
        ("https://host:port/mcp", {}, "not of the form"),
        ("https://ho st/mcp", {}, "not of the form"),
        ("https://[half/mcp", {}, "not of the form"),
        ("server 'half", {}, "cannot be split into words"),
        (["server", 7], {}, "must be texts"),
        (["server", "a\0b"], {}, "must be texts without NUL"),
        ("server", {"headers": {"A": "b"}}, "a command takes env="),
        ("https://host", {"env": {"A": "b"}}, "takes headers="),
        ("https://host", {"folder": "/tmp"}, "takes headers="),
        ("server", {"env": {"A=B": "secret"}}, "'A=B' cannot be set"),
        ("server", {"env": {"": "secret"}}, "'' cannot be set"),
        ("server", {"env": {"A": "secret\0"}}, "'A' cannot be set"),
        ("server", {"env": {"A": None}}, "env of an MCP server must map strings"),
        (
            "https://host",
            {"headers": {"A B": "secret"}},
            "'A B' of an MCP server contains characters",
        ),
        ("https://host", {"headers": {"A": "secret\r\nB: c"}}, "'A' of an MCP server contains"),
        ("https://host", {"headers": {"A": 1}}, "headers of an MCP server must map strings"),
    ],
)
def test_what_is_refused(server: str, options: dict[str, dict[str, str]], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(server, **options)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
