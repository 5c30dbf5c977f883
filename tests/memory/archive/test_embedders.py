"""Embedders: functions, hashes, and an endpoint like OpenAI's."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import numpy as np
import pytest

from treadle.errors import (
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    EmbeddingFailed,
    EmbeddingInvalid,
    MissingExtra,
    MissingKey,
    ModelError,
    ModelTimeout,
    NetworkForbidden,
    RateLimited,
    StreamInvalid,
    UnknownModel,
)
from treadle.memory.archive import openai_embedder
from treadle.memory.archive.embedders import (
    CallableEmbedder,
    Embedder,
    HashingEmbedder,
    Vectors,
    as_embedder,
    embedded,
)
from treadle.memory.archive.openai_embedder import OpenAIEmbedder
from treadle.memory.archive.resolve_embedder import resolve_embedder
from treadle.memory.archive.vectors import checked
from treadle.models.http import Timeouts
from treadle.models.retry import RetryPolicy
from treadle.models.transport import HttpRequest, HttpResponse

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

KEY = "sk-0123456789abcdef"
ONCE = RetryPolicy(max_retries=0)


def close(one: Sequence[float], two: Sequence[float]) -> float:
    a, b = np.array(one), np.array(two)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


async def test_hashing_knows_how_texts_are_written_and_nothing_else() -> None:
    embedder = HashingEmbedder()
    assert isinstance(embedder, Embedder)
    texts = ["a colourful house", "colour of houses", "automobile", "car", "東京都に住む", "東京都"]
    vectors = await embedder.embed([*texts, "a colourfull hous", "", "?!"])
    assert {len(vector) for vector in vectors} == {384}
    assert close(vectors[0], vectors[1]) > 0.2
    assert close(vectors[0], vectors[6]) > 0.3
    assert abs(close(vectors[2], vectors[3])) < 0.2
    assert close(vectors[4], vectors[5]) > 0.4
    assert not any(vectors[7])
    assert not any(vectors[8])
    assert await embedder.embed(texts[:1]) == vectors[:1]
    assert HashingEmbedder(8).name != embedder.name
    with pytest.raises(ConfigurationError):
        HashingEmbedder(0)


async def test_functions_of_any_kind_embed() -> None:
    def plain(some: list[str]) -> Vectors:
        return [[float(len(one))] for one in some]

    async def waits(some: list[str]) -> Vectors:
        return plain(some)

    class Caller:
        async def __call__(self, some: list[str]) -> Vectors:
            return plain(some)

    for function in (plain, waits, Caller(), partial(waits)):
        embedder = as_embedder(function)
        assert await embedded(embedder, ["ab", "c"]) == [[2.0], [1.0]]
        assert embedder.dimensions is None
    assert as_embedder(plain).name.endswith("plain")
    assert CallableEmbedder(plain, name="mine", dimensions=1).name == "mine"
    hashing = HashingEmbedder()
    assert as_embedder(hashing) is hashing
    with pytest.raises(ConfigurationError):
        CallableEmbedder("words")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CallableEmbedder(plain, dimensions=0)


async def test_whatever_an_embedder_raises_has_a_type() -> None:
    def fails(error: BaseException) -> Embedder:
        def function(_: list[str]) -> Vectors:
            raise error

        return CallableEmbedder(function)

    for error in (ValueError("x"), KeyError("x"), RateLimited("slow down")):
        with pytest.raises(EmbeddingFailed) as failed:
            await embedded(fails(error), ["x"])
        assert failed.value.__cause__ is error
    assert "slow down" in failed.value.message
    for typed in (EmbeddingFailed("x"), EmbeddingInvalid("y")):
        with pytest.raises(type(typed)) as raised:
            await embedded(fails(typed), ["x"])
        assert raised.value is typed
    for other in (asyncio.CancelledError(), SystemExit(3), GeneratorExit()):
        with pytest.raises(EmbeddingFailed, match="failed: "):
            await embedded(fails(other), ["x"])


async def test_the_cancellation_of_a_caller_passes() -> None:
    async def waits(_: list[str]) -> Vectors:
        await asyncio.sleep(60)
        raise AssertionError

    caller = asyncio.create_task(embedded(CallableEmbedder(waits), ["x"]))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


def test_vectors_become_of_length_one() -> None:
    rows = checked([[3.0, 4.0], [0.0, 0.0], [1e300, 0.0], [1e-300, 0.0]], 4, 2)
    assert np.allclose(rows, [[0.6, 0.8], [0, 0], [1, 0], [1, 0]])
    assert checked(np.ones((2, 3)), 2, None).dtype == np.float32  # type: ignore[arg-type]
    with pytest.raises(EmbeddingInvalid, match="the sizes 1, 2; all must have one size"):
        checked([[1.0], [1.0, 2.0]], 2, None)
    with pytest.raises(EmbeddingInvalid, match="nested lists"):
        checked([[[1.0]]], 1, 1)  # type: ignore[list-item]


# An endpoint like OpenAI's

Request = tuple[str, dict[str, object]]
Answer = Callable[[dict[str, object]], bytes]


def answer(status: str, body: object, headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n"
    return head.encode() + raw


def vectors_for(request: dict[str, object]) -> bytes:
    texts = request["input"]
    assert isinstance(texts, list)
    data = [{"index": n, "embedding": [float(len(one)), 1.0]} for n, one in enumerate(texts)]
    return answer("200 OK", {"object": "list", "data": data[::-1], "usage": {"total_tokens": 3}})


@asynccontextmanager
async def server(*answers: Answer) -> AsyncIterator[tuple[str, list[Request]]]:
    """Gives the answers one after the other; the last one is repeated, and None sends nothing."""
    left, requests, serving = list(answers), list[Request](), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
                requests.append((head, json.loads(await reader.readexactly(size))))
                if left:
                    reply = (left.pop(0) if len(left) > 1 else left[0])(requests[-1][1])
                    writer.write(reply)
                    await writer.drain()
                    if not reply:
                        break
        except asyncio.IncompleteReadError:
            pass  # the client has hung up
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1", requests
    finally:
        listening.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_an_endpoint_embeds_in_batches() -> None:
    async with server(vectors_for) as (url, requests):
        embedder = OpenAIEmbedder("small", base_url=url, api_key=KEY, batch=2, max_chars=4)
        assert await embedder.embed(["a", "bb", "ccccccc"]) == [[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]]
    assert [body["input"] for _, body in requests] == [["a", "bb"], ["cccc"]]
    head, body = requests[0]
    assert head.startswith("POST /v1/embeddings HTTP/1.1")
    assert f"Authorization: Bearer {KEY}" in head
    assert body == {"model": "small", "input": ["a", "bb"], "encoding_format": "float"}
    assert KEY not in repr(embedder)
    assert (embedder.name, embedder.dimensions) == ("small", None)


async def test_a_size_is_asked_for() -> None:
    async with server(vectors_for) as (url, requests):
        embedder = OpenAIEmbedder("small", base_url=url, dimensions=2, environ={})
        await embedder.embed(["a"])
    assert requests[0][1]["dimensions"] == 2
    assert "Authorization" not in requests[0][0]
    assert (embedder.name, embedder.dimensions) == ("small/2", 2)


@pytest.mark.parametrize(
    ("text", "variable", "key"),
    [
        ("openai:small", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
        ("gemini:small", "GEMINI_EMBEDDINGS_URL", "GEMINI_API_KEY"),
        ("mistral:small", "MISTRAL_BASE_URL", "MISTRAL_API_KEY"),
        ("ollama:small", "OLLAMA_HOST", "OLLAMA_API_KEY"),
        ("vllm:small", "VLLM_BASE_URL", "VLLM_API_KEY"),
        ("litellm:small", "LITELLM_BASE_URL", "LITELLM_API_KEY"),
    ],
)
async def test_a_string_names_an_embedder(text: str, variable: str, key: str) -> None:
    async with server(vectors_for) as (url, requests):
        embedder = resolve_embedder(text, {variable: url, key: KEY})
        assert await embedder.embed(["a"]) == [[1.0, 1.0]]
        assert embedder.name == "small"
        await resolve_embedder(f"{text}@{url}", {key: KEY}).embed(["a"])
    assert [f"Bearer {KEY}" in head for head, _ in requests] == [True, False]
    assert all(head.startswith("POST /v1/embeddings ") for head, _ in requests)


def test_where_embedders_are() -> None:
    gemini = resolve_embedder("gemini:gemini-embedding-001", {"GEMINI_API_KEY": KEY})
    url = "https://generativelanguage.googleapis.com/v1beta/openai/embeddings"
    assert url in repr(gemini)
    assert "http://127.0.0.1:11434/v1/embeddings" in repr(resolve_embedder("ollama:m", {}))
    with pytest.raises(MissingKey, match="GEMINI_API_KEY"):
        resolve_embedder("gemini:m", {})


@pytest.mark.parametrize("text", ["", "small", "openai:", "anthropic:m", "nope:m", "groq:m"])
def test_what_names_no_embedder(text: str) -> None:
    with pytest.raises(UnknownModel, match="use PROVIDER:NAME with one of openai"):
        as_embedder(text)


class FakeFastembed:
    """The part of fastembed that is used, and what it was asked."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def TextEmbedding(self, model_name: str) -> "FakeFastembed":
        self.models.append(model_name)
        return self

    def embed(self, documents: list[str], *, batch_size: int) -> Iterator[object]:
        assert batch_size == 64
        return (np.array([len(text), 1.0]) for text in documents)


async def test_a_local_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeFastembed()
    monkeypatch.setitem(sys.modules, "fastembed", fake)  # type: ignore[arg-type]
    embedder = as_embedder("local:BAAI/bge-small-en-v1.5")
    assert (embedder.name, embedder.dimensions) == ("BAAI/bge-small-en-v1.5", None)
    assert fake.models == []
    found = await asyncio.gather(*(embedder.embed(["a", "bb"]) for _ in range(3)))
    assert [[list(one) for one in vectors] for vectors in found] == [[[1.0, 1.0], [2.0, 1.0]]] * 3
    assert fake.models == ["BAAI/bge-small-en-v1.5"]


def test_a_local_model_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(MissingExtra, match=r"treadle\[embeddings\]"):
        as_embedder("local:m")


async def test_keys_come_from_the_environment() -> None:
    async with server(vectors_for) as (url, requests):
        environ = {"OPENAI_API_KEY": "sk-of-openai", "OPENAI_BASE_URL": url}
        await OpenAIEmbedder("small", environ=environ).embed(["a"])
        await OpenAIEmbedder("small", base_url=url, environ=environ).embed(["a"])
        await OpenAIEmbedder("small", base_url=url, environ={"TREADLE_API_KEY": "mine"}).embed(
            ["a"]
        )
        await OpenAIEmbedder("small", api_key="given", environ=environ).embed(["a"])
    sent = [head.partition("Authorization: Bearer ")[2].partition("\r")[0] for head, _ in requests]
    assert sent == ["sk-of-openai", "", "mine", "given"]
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        OpenAIEmbedder("small", environ={})


def test_what_cannot_be_an_endpoint() -> None:
    for options in (
        {"base_url": "ftp://x"},
        {"base_url": "http://user:word@x"},
        {"batch": 0},
        {"max_chars": 0},
        {"dimensions": 0},
    ):
        with pytest.raises(ConfigurationError) as refused:
            OpenAIEmbedder("small", api_key=KEY, **options)  # type: ignore[arg-type]
        assert "word" not in str(refused.value)
    with pytest.raises(MissingKey):
        OpenAIEmbedder("small", api_key="sk-\n")


async def test_other_hosts_are_forbidden_where_tests_forbid_them() -> None:
    with pytest.raises(NetworkForbidden):
        await OpenAIEmbedder("small", base_url="http://example.com", api_key=KEY).embed(["a"])


async def test_a_failure_is_tried_again() -> None:
    slow = answer("429 Too Many", {"error": {"message": "slow"}}, "Retry-After: 0\r\n")
    async with server(lambda _: slow, vectors_for) as (url, requests):
        embedder = OpenAIEmbedder("small", base_url=url, api_key=KEY)
        assert await embedder.embed(["a"]) == [[1.0, 1.0]]
    assert len(requests) == 2


REFUSED: dict[str, tuple[bytes, type[Exception], str]] = {
    "bad request": (
        answer("400 Bad", {"error": {"message": f"no such model for {KEY}"}}), BadRequest, "no such"
    ),
    "server": (answer("500 Oops", b"<html>"), ModelError, "500"),
    "hang up": (b"", ConnectionFailed, "disconnected"),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", ModelTimeout, "for 0.2 s"),
    "no list": (answer("200 OK", {"data": 5}), EmbeddingInvalid, "not a list of vectors"),
    "no json": (answer("200 OK", b"hello"), EmbeddingInvalid, "not a list of vectors"),
    "too few": (answer("200 OK", {"data": []}), EmbeddingInvalid, "0 vectors for 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
async def test_failures_have_types_and_no_keys(kind: str) -> None:
    reply, error, says = REFUSED[kind]
    async with server(lambda _: reply) as (url, _):
        embedder = OpenAIEmbedder(
            "small",
            base_url=url,
            api_key=KEY,
            retry=ONCE,
            timeouts=Timeouts(between_chunks=0.2),
        )
        with pytest.raises(error, match=says) as failed:
            await embedder.embed(["a"])
    assert KEY not in str(failed.value)


async def test_silence_has_an_end() -> None:
    async with server() as (url, _):
        embedder = OpenAIEmbedder(
            "small", base_url=url, api_key=KEY, retry=ONCE, timeouts=Timeouts(first_byte=0.1)
        )
        with pytest.raises(ModelTimeout):
            await embedder.embed(["a"])


async def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_embedder, "_MAX_BYTES", 1000)
    async with server(lambda _: answer("200 OK", b" " * 5000)) as (url, _):
        embedder = OpenAIEmbedder("small", base_url=url, api_key=KEY, retry=ONCE)
        with pytest.raises(StreamInvalid, match="more than 1,000 bytes"):
            await embedder.embed(["a"])


async def test_servers_that_omit_the_index() -> None:
    data = [{"embedding": [1.0]}, {"embedding": [2.0]}]
    async with server(lambda _: answer("200 OK", {"data": data})) as (url, _):
        embedder = OpenAIEmbedder("small", base_url=url, api_key=KEY)
        assert await embedder.embed(["a", "b"]) == [[1.0], [2.0]]


async def test_requests_go_through_a_transport_of_its_own() -> None:
    asked: list[str] = []

    class Broken:
        async def send(self, request: HttpRequest) -> HttpResponse:
            asked.append(request.url)
            raise ConnectionResetError("by the test")

    embedder = OpenAIEmbedder(
        "m", api_key="", base_url="http://example.org/v1", retry=ONCE, transport=Broken()
    )
    with pytest.raises(ConnectionFailed, match=r"example\.org broke: by the test"):
        await embedder.embed(["a"])
    assert asked == ["http://example.org/v1/embeddings"]
