import pytest

from treadle.models.secrets import masked, masked_url, secrets_of


def test_which_headers_are_secret() -> None:
    headers = {
        "Authorization": "Bearer abcdefgh12345",
        "x-api-key": "zyxwvuts98765",
        "Api-Key": "short",
        "X-Title": "An application",
        "Cookie": "session=0123456789",
    }
    assert set(secrets_of(headers)) == {
        "Bearer abcdefgh12345",
        "abcdefgh12345",
        "zyxwvuts98765",
        "session=0123456789",
    }


def test_what_is_masked() -> None:
    assert masked("zyxwvuts98765, I said", ["zyxwvuts98765"]) == "***, I said"
    assert masked("say zyxwvuts9 …", ["zyxwvuts98765"]) == "say *** …"
    assert masked("say zyxwvut …", ["zyxwvuts98765"]) == "say zyxwvut …"
    assert masked("at http://me:pw@host/p and //x@y", []) == "at http://***@host/p and //***@y"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/v1", "https://host/v1"),
        ("https://me:pw@host/v1?key=abc", "https://***@host/v1"),
        ("https://me:p@w@host", "https://***@host"),
        ("https://me:p/w?p@host", "https://***@host"),
        ("socks5+x://me:pw@host:1", "socks5+x://***@host:1"),
        ("me:pw@host/v1", "***@host/v1"),
        ("", ""),
    ],
)
def test_how_a_url_is_shown(url: str, shown: str) -> None:
    assert masked_url(url) == shown
