"""What a node needs to know of Restate, and what it refuses."""

from typing import Any

import pytest

import treadle
from treadle import Restate, Runtime
from treadle.actors.restate_endpoint import Endpoint
from treadle.errors import ConfigurationError
from treadle.journal.memory import MemoryJournal
from treadle.server import ServerSettings

INGRESS = "http://restate:8080"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"ingress": "restate:8080"}, "ingress="),
        ({"ingress": ""}, "ingress="),
        ({"ingress": "ftp://restate"}, "ingress="),
        ({"ingress": "http://[::1"}, "ingress="),
        ({"admin": "http://"}, "admin="),
        ({"url": "http://nodes:99999"}, "url="),
        ({"port": 70_000}, "port=70000"),
        ({"service": "a/b"}, "service="),
        ({"service": ""}, "service="),
        ({"host": "0.0.0.0"}, "identity_keys"),
        ({"host": "nodes.example.com"}, "identity_keys"),
        ({"host": "0.0.0.0", "identity_keys": "publickeyv1_x"}, "is a list"),
        ({"host": "::", "identity_keys": ["publickeyv1_x"], "admin": INGRESS}, "url"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        Restate(**{"ingress": INGRESS, **settings})


def test_a_key_that_is_not_one() -> None:
    settings = Restate(INGRESS, identity_keys=["publickeyv1_x"])
    with pytest.raises(ConfigurationError, match="identity_keys cannot be used"):
        Endpoint(settings, _hold)


async def _hold(_: str) -> bool:
    return False


def test_a_token_is_not_shown() -> None:
    settings = Restate("https://example.restate.cloud:8080", token="secret")
    assert "secret" not in repr(settings)
    url = "https://ann:s3cret@h/x?password=s3cret"
    shown = repr(
        ServerSettings(
            restate_token="s3cret", database=f"postgresql{url[5:]}", pooler=url, restate_admin=url
        )
    )
    assert "s3cret" not in shown
    assert "database='postgresql://ann@h/x'" in shown
    for wrong in (url, "https://h/x?token=s3cret", f"ftp://ann:s3cret{'x' * 300}@h"):
        with pytest.raises(ConfigurationError) as refused:
            Restate(wrong)
        assert "s3cret" not in str(refused.value)


def test_restate_needs_a_shared_database() -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL"):
        Runtime(MemoryJournal(), engine=Restate(INGRESS))
    with pytest.raises(ConfigurationError, match=r"engine=treadle\.Restate"):
        treadle.open("postgresql://x", engine="http://restate:8080")  # type: ignore[arg-type]
