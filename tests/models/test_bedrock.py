"""Bedrock as a model: where requests go, and how they are authorised and signed."""

import asyncio
import hashlib
import hmac
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.families import CLIENTS
from tests.models.test_api_key import Caught, sent

from treadle import Agent, tool
from treadle.domain.items import user_message
from treadle.errors import (
    AccessDenied,
    ConfigurationError,
    ConnectionFailed,
    MissingKey,
    ModelTimeout,
)
from treadle.models import Bedrock, resolve_model
from treadle.models.base import ModelRequest
from treadle.models.http import Timeouts
from treadle.models.prices import price_of
from treadle.models.transport import HttpRequest
from treadle.models.windows import window_of
from treadle.testing import ProviderSimulator
from treadle.testing.simulator.wire.converse_frames import message

pytestmark = pytest.mark.anyio

CLAUDE = "eu.anthropic.claude-sonnet-5"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
SECRET = "secret-access-key-0123456789"
TOKEN = "session-token-0123456789/abc=="
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
}


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


# Where requests go


@pytest.mark.parametrize(
    ("name", "region", "url"),
    [
        (CLAUDE, "eu-west-1", f"https://bedrock-runtime.eu-west-1.amazonaws.com/model/{CLAUDE}/"),
        (PROFILE, None, "https://bedrock-runtime.eu-west-1.amazonaws.com/model/arn:aws:bedrock:"),
        (PROFILE, "us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com/model/arn"),
        ("m", "cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/m/"),
        ("m", "us-gov-west-1", "https://bedrock-runtime.us-gov-west-1.amazonaws.com/model/m/"),
        ("m", "eusc-de-east-1", "https://bedrock-runtime.eusc-de-east-1.amazonaws.eu/model/m/"),
    ],
)
def test_the_address(name: str, region: str | None, url: str) -> None:
    assert url in repr(Bedrock(name, region=region, api_key="k"))


@pytest.mark.parametrize("region", [None, "", "x", "eu-west-1/..", "evil.com#-1"])
def test_a_region_is_needed(region: str | None) -> None:
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        Bedrock("m", region=region, api_key="k")
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        Bedrock("m", region=region, base_url="http://h")  # to sign


def test_by_a_string() -> None:
    environ = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_BEARER_TOKEN_BEDROCK": "key-1"}
    model = resolve_model(f"bedrock:{CLAUDE}", environ)
    assert isinstance(model, Bedrock)
    assert "bedrock-runtime.eu-west-1" in repr(model)
    assert (model._api_key, model.provider) == ("key-1", "bedrock:anthropic")
    assert (model.name, model.output_mode) == (CLAUDE, "tool")
    environ |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://h:1"}
    assert "http://h:1/model/" in repr(resolve_model("bedrock:m", environ))
    environ |= {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://h:2"}
    assert "http://h:2/model/" in repr(resolve_model("bedrock:m", environ))
    assert "eu-west-1" in repr(resolve_model(f"bedrock:{PROFILE}", {}))
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        resolve_model("bedrock:m", {"AWS_BEARER_TOKEN_BEDROCK": "k"})


def test_another_server_gets_no_key_of_aws_and_no_signature() -> None:
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "k", "TREADLE_API_KEY": "own"}
    model = resolve_model("bedrock:m@http://h:1", environ)
    assert isinstance(model, Bedrock)
    assert (model._api_key, model.provider, model._signer) == ("own", "bedrock:h", None)


def test_the_model_behind_an_arn() -> None:
    opaque = Bedrock(PROFILE, api_key="k")
    known = Bedrock(PROFILE, api_key="k", base_model=CLAUDE)
    request = ModelRequest(items=[user_message("hi")])
    assert (opaque.provider, known.provider) == ("bedrock", "bedrock:anthropic")
    assert b"cachePoint" not in opaque._wire.encode(PROFILE, request).body
    assert b"cachePoint" in known._wire.encode(PROFILE, request).body


@pytest.mark.parametrize(
    ("model", "window", "price"),
    [
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 3.0),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 3.3),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 3.3),
        ("us.anthropic.claude-sonnet-5", 1_000_000, 2.2),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-sonnet-5",
            1_000_000,
            2.0,
        ),
        ("us.amazon.nova-lite-v1:0", 300_000, 0.06),
        (PROFILE, None, None),
    ],
)
def test_windows_and_prices(model: str, window: int | None, price: float | None) -> None:
    found = price_of(model)
    assert window_of(model) == window
    assert (found and found.input) == price


async def test_an_agent_with_tools(simulator: ProviderSimulator) -> None:
    @tool
    def look(at: str) -> str:
        """Looks."""
        return at

    name = "sim:calls=2,rounds=2,reasoning=3,deltas=3"
    model = Bedrock(name, api_key="secret-key", base_url=simulator.base_url.removesuffix("/v1"))
    result = await Agent(model, tools=[look]).run("hi")
    assert result.output
    assert result.usage.requests == 3
    assert simulator.statistics().rejected == 0
    assert {request.headers["authorization"] for request in simulator.requests} == {"***"}


async def test_a_key_as_a_bearer_token() -> None:
    transport = Caught()
    tokens = ["one", "two"]
    model = Bedrock("m", region="eu-west-1", api_key=lambda: tokens.pop(0), transport=transport)
    for token in ("one", "two"):
        request = await sent(model, transport)
        assert request.headers["Authorization"] == f"Bearer {token}"
        assert request.headers["Accept"] == "application/vnd.amazon.eventstream"


# Signatures


@pytest.fixture
def botocore(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """botocore from the environment of the clients, which finds nothing but its environment."""
    (packages,) = CLIENTS.glob(".venv/lib/*/site-packages")
    monkeypatch.syspath_prepend("")  # restores the path
    sys.path.append(str(packages))
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore"]:
        del sys.modules[name]


needs_botocore = pytest.mark.needs("python clients")


def signature_of(path: str, headers: dict[str, str], body: bytes) -> str:
    """The signature of a request as it arrived, by the specification alone."""
    scope, signed = (
        headers["authorization"].partition(f"{part}=")[2].partition(",")[0]
        for part in ("Credential", "SignedHeaders")
    )
    date, region, service, last = scope.split("/")[1:]
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed.split(";"))
    payload = hashlib.sha256(body).hexdigest()
    request = f"POST\n{quote(path, safe='/-_.~')}\n\n{lines}\n{signed}\n{payload}"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{date}/{region}/{service}/{last}\n{hashed}"
    key = f"AWS4{SECRET}".encode()
    for part in (date, region, service, last):
        key = hmac.digest(key, part.encode(), "sha256")
    assert (region, service) == ("eu-west-1", "bedrock")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


@needs_botocore
@pytest.mark.real_clock
@pytest.mark.parametrize("name", ["eu.anthropic.claude-x-v1:0", PROFILE, "ü b=c,d;e~f"])
async def test_what_arrives_has_the_right_signature(
    name: str, botocore: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        arrived.append((first.split()[1], headers, body))
        answer = message("messageStop", b'{"stopReason":"end_turn"}') + message("metadata", b"{}")
        head = f"Content-Type: application/vnd.amazon.eventstream\r\nContent-Length: {len(answer)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n".encode() + answer)
        writer.close()

    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base"
    model = Bedrock(name, region="eu-west-1", base_url=url)
    async for _ in model.stream(ModelRequest(items=[user_message("Grüße")])):
        pass
    server.close()
    ((path, headers, body),) = arrived
    assert headers["x-amz-security-token"] == TOKEN
    assert headers["authorization"].endswith(f"Signature={signature_of(path, headers, body)}")


class Session:
    """Stands in for a session of botocore; `find` returns the credentials or raises."""

    def __init__(self, find: Any) -> None:
        self._find = find

    def get_credentials(self) -> Any:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # it may block: it runs in a thread
        return self._find()


async def signed(session: Session | None = None, **more: Any) -> HttpRequest:
    transport = Caught()
    model = Bedrock("m", region="eu-west-1", session=session, transport=transport, **more)
    return await sent(model, transport)


@needs_botocore
async def test_credentials_are_renewed(botocore: None) -> None:
    from botocore.credentials import ReadOnlyCredentials

    keys = ["one", "two"]

    class Renewed:
        def get_frozen_credentials(self) -> Any:
            return ReadOnlyCredentials(keys.pop(0), SECRET, None)

    transport = Caught()
    session = Session(Renewed)
    model = Bedrock("m", region="eu-west-1", session=session, transport=transport)
    for key in ("one", "two"):
        request = await sent(model, transport)
        assert f"Credential={key}/" in request.headers["Authorization"]
        assert "X-Amz-Security-Token" not in request.headers


@needs_botocore
@pytest.mark.parametrize("session", [None, Session(lambda: None)])
async def test_without_credentials(session: Session | None, botocore: None) -> None:
    with pytest.raises(MissingKey, match="AWS_BEARER_TOKEN_BEDROCK"):
        await signed(session)


@needs_botocore
async def test_credentials_that_cannot_be_had(
    botocore: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore import exceptions

    def failing(error: Exception) -> Session:
        def find() -> Any:
            raise error

        return Session(find)

    with pytest.raises(AccessDenied, match="SSO"):
        await signed(failing(exceptions.SSOTokenLoadError(error_msg="sign in")))
    with pytest.raises(ConnectionFailed, match="EndpointConnectionError"):
        await signed(failing(exceptions.EndpointConnectionError(endpoint_url="https://sts")))
    denied = exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")
    with pytest.raises(AccessDenied, match="AssumeRole"):
        await signed(failing(denied))
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(AccessDenied, match="nowhere"):
        await signed()


class Held:
    """Credentials that are given out when `released`; `asked` counts how often they are wanted."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.wanted = threading.Event()
        self.asked = 0
        self.failure: Exception | None = None

    def __call__(self) -> Any:
        return self

    def refresh_needed(self, seconds: float) -> bool:
        return seconds > 600

    def get_frozen_credentials(self) -> Any:
        from botocore.credentials import ReadOnlyCredentials

        self.asked += 1
        number = self.asked
        self.wanted.set()
        self.released.wait(30)
        if self.failure is not None:
            raise self.failure
        return ReadOnlyCredentials(f"key{number}", SECRET, None)


@needs_botocore
@pytest.mark.real_clock
async def test_credentials_are_asked_for_once_however_many_requests_wait(botocore: None) -> None:
    held = Held()
    model = Bedrock("m", region="eu-west-1", session=Session(held), transport=(wire := Caught()))
    waiting = [asyncio.create_task(sent(model, wire)) for _ in range(100)]
    await asyncio.to_thread(held.wanted.wait, 5)
    # The threads of the program are free.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 1) == "free"
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    held.failure = OSError("away")
    held.released.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [ConnectionFailed] * 99
    assert (type(results[0]), held.asked) == (asyncio.CancelledError, 1)
    held.failure = None  # a failure is not kept
    assert "Credential=key2/" in (await sent(model, wire)).headers["Authorization"]


@needs_botocore
@pytest.mark.real_clock
async def test_a_renewal_ahead_of_its_time_holds_up_no_other_request(botocore: None) -> None:
    held = Held()
    held.released.set()
    model = Bedrock("m", region="eu-west-1", session=Session(held), transport=(wire := Caught()))
    await sent(model, wire)
    held.released.clear()
    held.wanted.clear()
    renewing = asyncio.create_task(sent(model, wire))
    await asyncio.to_thread(held.wanted.wait, 5)
    assert "Credential=key1/" in (await sent(model, wire)).headers["Authorization"]
    held.released.set()
    assert "Credential=key2/" in (await renewing).headers["Authorization"]


@needs_botocore
@pytest.mark.real_clock
async def test_credentials_that_take_too_long(botocore: None) -> None:
    released = threading.Event()

    def find() -> None:
        released.wait(30)

    with pytest.raises(ModelTimeout, match=r"longer than 0\.05 s"):
        await signed(Session(find), timeouts=Timeouts(first_byte=0.05))
    released.set()


async def test_without_botocore_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(MissingKey, match=r"treadle\[bedrock\]"):
        await signed()


@needs_botocore
async def test_no_secret_is_logged(
    botocore: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """botocore logs the signed headers, and the responses that contain credentials."""
    caplog.set_level(logging.DEBUG)
    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    await signed()
    request = await signed()
    signature = request.headers["Authorization"].rpartition("=")[2]
    assert not [secret for secret in (SECRET, TOKEN, signature) if secret in caplog.text]
    assert not [r for r in caplog.records if r.name.startswith("botocore") and r.levelno < 30]
    logging.getLogger("botocore.auth").debug("elsewhere")
    assert "elsewhere" in caplog.text


@needs_botocore
@pytest.mark.real_clock
async def test_a_token_that_the_provider_repeats_is_masked(
    botocore: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.testing.simulator import Rejected

    def refuse(_: Any) -> Any:
        raise Rejected(403, f"The canonical string should have been x-amz-security-token:{TOKEN}")

    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    async with ProviderSimulator(refuse) as simulator:
        model = Bedrock("m", region="eu-west-1", base_url=simulator.base_url)
        with pytest.raises(AccessDenied) as caught:
            async for _ in model.stream(ModelRequest(items=[user_message("hi")])):
                pass
    assert TOKEN not in caught.value.message
    assert "***" in caught.value.message
