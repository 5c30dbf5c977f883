import asyncio
from collections.abc import Awaitable, Callable

import pytest

from treadle.cli.model_choice import choose_model, served_models
from treadle.cli.model_list import usable_models

pytestmark = pytest.mark.anyio

NOWHERE = {"OLLAMA_HOST": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("option", "environ", "model"),
    [
        ("chat:x", {"TREADLE_MODEL": "demo"}, "chat:x"),
        (None, {"TREADLE_MODEL": "chat:y", "OPENAI_API_KEY": "k"}, "chat:y"),
        (None, {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, "openai:gpt-5-mini"),
        (None, {"ANTHROPIC_API_KEY": "k"}, "anthropic:claude-sonnet-4-5"),
        (None, {"GEMINI_API_KEY": "k"}, "gemini:gemini-3.8-flash"),
        (None, {"MISTRAL_API_KEY": "k"}, "mistral:mistral-medium-latest"),
        (None, {"OPENAI_API_KEY": " "}, "demo"),
    ],
)
async def test_the_order_of_choices(
    option: str | None, environ: dict[str, str], model: str
) -> None:
    choice = await choose_model(option, {**NOWHERE, **environ})
    assert choice.model == model
    assert "\n" not in choice.note


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def test_the_models_of_a_local_server() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        named = b'{"object": "list", "data": [{"id": "qwen3", "object": "model"}]}'
        body = named if b"GET /v1/models " in head and b"Bearer k" in head else b"{"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    assert await served_models(url, "k") == ["qwen3"]
    assert await served_models(url, "") == []
    listed = await usable_models({**NOWHERE, "VLLM_BASE_URL": url, "VLLM_API_KEY": "k"})
    assert [one.usable for one in listed if one.model == "vllm:qwen3"] == [True]
    server.close()
    await server.wait_closed()
    assert await served_models(url, "k") == []


async def answered(body: bytes) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    choice = await choose_model(None, {"OLLAMA_HOST": f"127.0.0.1:{port}"})
    server.close()
    return choice.model


async def test_a_local_ollama_is_used() -> None:
    assert await answered(b'{"models": [{"name": "qwen3:8b", "size": 1}]}') == "ollama:qwen3:8b"


@pytest.mark.parametrize("body", [b'{"models": []}', b"<html>", b"[]", b"{}"])
async def test_what_is_no_ollama(body: bytes) -> None:
    assert await answered(body) == "demo"
