"""How URLs are shown, and what in them is a secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.urls import keys_in_url, masked_database, masked_url, secrets_in_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/v1", "https://host/v1"),
        ("https://me:pw@host/v1?key=abc", "https://***@host/v1"),
        ("https://me:p@w@host", "https://***@host"),
        ("https://me:p/w?p@host", "https://***@host"),
        ("socks5+x://me:pw@host:1", "socks5+x://***@host:1"),
        ("me:pw@host/v1", "***@host/v1"),
        ("https://host/v1#token=abc", "https://host/v1"),
        ("", ""),
    ],
)
def test_how_a_url_is_shown(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@given(st.text(alphabet="ab1/:@?#%&=[]", max_size=20), st.sampled_from(["https", "postgresql", ""]))
def test_no_password_is_shown(password: str, scheme: str) -> None:
    start = f"{scheme}://" if scheme else ""
    shown = f"{start}***@host/name"
    assert masked_url(f"{start}ann:x{password}@host/name?sslmode=require") == shown
    user = "ann" if scheme else "***"
    shown = f"{start}{user}@host/name"
    assert masked_database(f"{start}ann:x{password}@host/name?password=x") == shown


def test_a_database_is_shown_with_its_user() -> None:
    assert masked_database("postgresql://ann@h:5432/x") == "postgresql://ann@h:5432/x"
    assert masked_database("postgresql://h:5432/x") == "postgresql://h:5432/x"


def test_what_in_a_url_may_be_a_key() -> None:
    url = (
        "https://me:pw@h/api/s/Zm9vYmFyMTIz/mcp?api_key=sesame&v=2024-10-01&x=web_search&8f3a9b2c7d"
    )
    assert set(secrets_in_url(url)) == {"me", "pw", "sesame"}
    assert set(keys_in_url(url)) == {
        *("me", "pw", "sesame", "Zm9vYmFyMTIz", "2024-10-01", "8f3a9b2c7d"),
    }
    assert {"a%2Bb", "a+b"} == set(secrets_in_url("https://h/?token=a%2Bb"))
    assert [*keys_in_url("https://[h/")] == []
