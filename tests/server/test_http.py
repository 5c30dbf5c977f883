"""What comes before a body: heads that are large, slow or crafted, and whom they come from."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.server.serving import NO_AUTH, Client, opened, serving
from tests.server.test_security import AUTH, ring

from treadle import Agent, Runtime
from treadle.errors import ConfigurationError, JournalError
from treadle.server import ServerSettings
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
HOST = b"Host: 127.0.0.1\r\n"


def agent() -> Agent:
    return Agent(ScriptedModel(["Yes."] * 10))


async def connect(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = client.http.base_url
    return await asyncio.open_connection(url.host, url.port)


async def exchange(client: Client, *parts: bytes) -> tuple[int, bytes]:
    """Sends bytes; returns the status of the first answer, or 0, and all that came."""
    reader, writer = await connect(client)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(100):
            answer = await reader.read()
    except (ConnectionError, TimeoutError):
        return 0, b""
    finally:
        writer.close()
    return int(answer[9:12] or 0), answer


def code_of(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head.lower()
    return json.loads(body)["code"]


LARGE = [
    [b"GET /%b HTTP/1.1\r\n" % (b"x" * 3000), HOST, b"\r\n"],
    [b"GET / HTTP/1.1\r\n", HOST, b"x: %b\r\n\r\n" % (b"y" * 3000)],
    [b"GET / HTTP/1.1\r\n", HOST, b"%b: 1\r\n\r\n" % (b"y" * 3000)],
    [b"GET / HTTP/1.1\r\n", HOST, *([b"x: 1\r\n"] * 30), b"\r\n"],
    [b"GET / HTTP/1.1\r\n" + HOST + b"x: 1\r\n" * 30 + b"\r\n"],
    # A header without an end, and a URL without one: the parser keeps all of it.
    [b"GET / HTTP/1.1\r\nx: ", *([b"y" * 100] * 40)],
    [b"GET /", *([b"y" * 100] * 40)],
]


@pytest.mark.parametrize("parts", LARGE)
async def test_heads_have_limits(open_runtime: Open, parts: list[bytes]) -> None:
    settings = replace(NO_AUTH, max_header_bytes=2000, max_headers=20)
    async with serving(open_runtime(agent()), settings) as client:
        status, answer = await exchange(client, *parts)
        assert (status, code_of(answer)) == (431, "headers_too_large")
        assert b"connection: close" in answer
        assert (await client.http.get("/healthz")).status_code == 200
        body = b"x" * 1900  # what belongs to a body does not count
        status, _ = await exchange(
            client,
            b"POST /api/v1/files HTTP/1.1\r\nConnection: close\r\nContent-Length: 3800\r\n",
            HOST + b"\r\n" + body,
            body,
        )
        assert status == 201


async def test_slow_heads_do_not_hold_connections(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, header_seconds=10.0)
    loop = asyncio.get_running_loop()
    async with serving(open_runtime(agent()), settings) as client:
        silent = await connect(client)
        slow = [await connect(client) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"GET /healthz HTTP/1.1\r\n")
        # One that sends an empty line after an answer, so that nothing but its time limit ends it.
        idle = await connect(client)
        idle[1].write(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        await idle[0].readuntil(b"ok\n")
        idle[1].write(b"\r\n")
        began = loop.time()

        async def drip(writer: asyncio.StreamWriter) -> None:
            while not writer.is_closing():
                writer.write(b"x: y\r\n")
                await asyncio.sleep(1)

        dripping = [asyncio.ensure_future(drip(writer)) for _, writer in slow]
        assert (await client.http.get("/healthz")).status_code == 200
        answers = await asyncio.gather(*(reader.read() for reader, _ in slow))
        assert 9 <= loop.time() - began < 12
        assert {(answer[9:12], code_of(answer)) for answer in answers} == {
            (b"408", "request_timeout")
        }
        assert await idle[0].read() == b""
        assert await silent[0].read() in (b"", answers[0])
        for task in dripping:
            task.cancel()
        for _, writer in (*slow, silent, idle):
            writer.close()
        assert (await client.http.get("/healthz")).status_code == 200


async def test_a_stream_outlives_the_time_limits_of_requests(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, header_seconds=2.0, body_seconds=2.0)
    async with serving(open_runtime(agent()), settings) as client:
        thread_id = await client.thread()
        async with client.stream(f"/threads/{thread_id}/events"):
            await opened(client, 1)
            await asyncio.sleep(60)
            assert len(client.app.services.open_requests) == 1


async def test_a_long_body_may_take_its_time(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, body_seconds=2.0)
    async with serving(open_runtime(agent()), settings) as client:

        async def parts() -> Any:
            for _ in range(10):
                yield b"x" * 65536
                await asyncio.sleep(0.9)

        assert (await client.send("POST", "/files", content=parts())).status_code == 201
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, answer = await exchange(
            client,
            b"POST /api/v1/files HTTP/1.1\r\nContent-Length: 999999\r\n" + HOST + b"\r\n",
            b"x" * 65536 * 3,
        )
        assert (status, code_of(answer)) == (408, "request_timeout")
        assert 4 < loop.time() - began < 8


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/9.9\r\n",
        b"\x00\x01\x02\r\n",
        b"GET /api/v1/\xff HTTP/1.1\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nx y: 1\r\n",
        b"GET / HTTP/1.1\r\nx: 1\r\n\tfolded\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n",
        b"POST /api/v1/threads HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"POST /api/v1/threads HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
        b"POST /api/v1/threads HTTP/1.1\r\nContent-Length: -2\r\n",
        b"POST /api/v1/threads HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ],
)
async def test_what_is_not_http_is_refused(open_runtime: Open, head: bytes) -> None:
    async with serving(open_runtime(agent())) as client:
        end = b"Connection: close\r\n" + HOST + b"\r\n{}"
        status, answer = await exchange(client, head + end)
        assert 400 <= status < 500, answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert (await client.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/threads/../../etc/passwd",
        "/api/v1/threads/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/page/../settings.py",
        "/page/%2e%2e/settings.py",
        "/page/vendor/..%2f..%2f..%2fkeys.py",
        "/page//etc/passwd",
        "//evil.example/api/v1/threads",
        "/api/v1/threads/",
        "/api/v1//threads",
        "/API/V1/threads",
        "/api/v1/threads/%00/events",
        "/api/v1/threads/%ff%fe",
        "/api/v1/files/..%2f..%2fetc%2fpasswd/content",
    ],
)
async def test_paths_lead_nowhere_else(open_runtime: Open, path: str) -> None:
    async with serving(open_runtime(agent())) as client:
        request = f"GET {path} HTTP/1.1\r\nConnection: close\r\n".encode()
        status, answer = await exchange(client, request + HOST + b"\r\n")
        assert status == 404, answer
        assert b"root:" not in answer
        assert code_of(answer).endswith(("_not_found", "unknown_file"))


async def test_only_named_proxies_say_who_the_client_is(open_runtime: Open, caplog: Any) -> None:
    caplog.set_level("INFO", "treadle.server.access")
    keys = ring(one=(None, "admin"))
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "6.6.6.6, 203.0.113.7"}
    for proxies, is_believed in (((), False), (("10.0.0.0/8",), False), (("127.0.0.1",), True)):
        settings = replace(AUTH, trusted_proxies=proxies, access_log=True)
        async with serving(open_runtime(agent()), settings, keys=keys.keys) as client:
            answer = await client.send("POST", "/session", headers=keys.headers("one") | forwarded)
            assert ("; Secure" in answer.headers["set-cookie"]) == is_believed
        client_address = caplog.records[-1].__dict__["client"]
        assert client_address == ("203.0.113.7" if is_believed else "127.0.0.1")


async def test_pages_of_other_origins(open_runtime: Open) -> None:
    keys = ring(one=(None, "admin"))
    app = "https://app.example.com"
    settings = replace(AUTH, origins=(app,), max_body_bytes=100)
    async with serving(open_runtime(agent()), settings, keys=keys.keys) as client:
        mine, theirs = keys.headers("one") | {"origin": app}, {"origin": "https://evil.example"}
        thread = await client.send("POST", "/threads", {}, headers=mine)
        events = f"/api/v1/threads/{thread.json()['id']}/events"
        answers = [
            thread,
            await client.send("GET", "/threads/x", headers=mine),  # 404
            await client.send("GET", "/threads", headers={"origin": app}),  # 401
            await client.send("POST", "/threads", {"agent": "x" * 200}, headers=mine),  # 413
            await client.head_of("GET", events, headers=mine),
        ]
        assert [answer.status_code for answer in answers] == [201, 404, 401, 413, 200]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == app
            assert answer.headers["vary"] == "origin"
            assert "retry-after" in answer.headers["access-control-expose-headers"]
            # A cookie of the page is never used by another origin.
            assert "access-control-allow-credentials" not in answer.headers
        preflight = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, idempotency-key",
        }
        allowed = await client.send("OPTIONS", "/threads", headers={"origin": app} | preflight)
        assert allowed.status_code == 204
        names = allowed.headers["access-control-allow-headers"].split(", ")
        assert set(preflight["access-control-request-headers"].split(", ")) <= set(names)
        assert "PATCH" in allowed.headers["access-control-allow-methods"]
        for headers in (theirs, {"origin": "null"}, {"origin": f"{app}.evil.example"}):
            for method in ("OPTIONS", "GET", "POST"):
                refused = await client.send(
                    method, "/threads", headers=keys.headers("one") | headers | preflight
                )
                assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")
                assert not any(name.startswith("access-control") for name in refused.headers)


async def test_what_may_be_done_twice_is_not_sent_again(
    open_runtime: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = open_runtime(agent())
    async with serving(runtime) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages"

        def failing(error: Exception) -> Any:
            async def submit(*_: object, **__: object) -> Any:
                raise error

            return submit

        class Full(JournalError):
            retryable = True

        for error, headers, status, again in (
            (RuntimeError("secret"), {}, 500, "false"),
            (RuntimeError("secret"), {"idempotency-key": "a"}, 500, "false"),
            # Whether it was stored is not known; a key makes it safe.
            (Full("/secret is full"), {}, 503, "false"),
            (Full("/secret is full"), {"idempotency-key": "a"}, 503, "true"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(runtime._threads, "submit", failing(error))
                answer = await client.send("POST", path, {"message": "Hi."}, headers=headers)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (status, again)
            assert "secret" not in answer.text
        for method, where, body, status in (
            ("POST", path, {"message": ""}, 400),
            ("GET", "/threads/x", None, 404),
            ("POST", path, {"message": "Hi.", "by": "x"}, 400),
        ):
            answer = await client.send(method, where, body)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (status, "false")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"origins": ("*",)}, "not an origin"),
        ({"origins": ("https://app.example.com/path",)}, "not an origin"),
        ({"origins": ("null",)}, "not an origin"),
        ({"trusted_proxies": ("*",)}, "not an IP address"),
        ({"trusted_proxies": ("proxy.example",)}, "not an IP address"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "every address"),
        ({"max_runs_per_owner": 1001}, "above 1000"),
        ({"max_streams": 0}, "above 0"),
        ({"requests_per_second": -1.0}, "cannot be negative"),
        ({"requests_per_second": float("nan")}, "cannot be negative"),
    ],
)
def test_limits_and_names_that_are_not_valid(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        ServerSettings(**given)
