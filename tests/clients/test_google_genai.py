"""Google's SDK, in an environment of its own: its types check requests, it reads the simulator."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from tests.families import CLIENTS
from tests.models.wire.odd_histories import HOSTED_GEMINI, histories
from tests.models.wire.test_sendable import REQUESTS

from treadle.domain.events import ReasoningDelta, TextDelta
from treadle.domain.items import FunctionCall, user_message
from treadle.domain.schema import OutputSchema
from treadle.models.base import ModelRequest
from treadle.models.typed_stream import typed_stream
from treadle.models.wire.gemini_request import GeminiOptions, encode_request
from treadle.streaming.demux import ItemFinished
from treadle.testing import Call, ProviderSimulator, Reasoning, Refusal, Text, Turn

pytestmark = [pytest.mark.real_clock, pytest.mark.needs("python clients")]

Json = dict[str, Any]
USER = {"role": "user", "parts": [{"text": "hi"}]}
TOOL = {
    "functionDeclarations": [
        {
            "name": "look",
            "description": "Looks.",
            "parametersJsonSchema": {"type": "object", "properties": {"at": {"type": "string"}}},
        }
    ]
}


class Sdk:
    """The process in which the SDK runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, op: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["ok"]


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    process = subprocess.Popen(
        [CLIENTS / ".venv/bin/python", CLIENTS / "google_worker.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Sdk(process)
        assert process.stdin is not None
        process.stdin.close()


def require_valid(sdk: Sdk, request: ModelRequest, model: str) -> None:
    body = encode_request(model, request, GeminiOptions()).body
    sdk("validate", body=json.loads(body))


@given(request=REQUESTS(histories(HOSTED_GEMINI)))
def test_any_history_fits_the_types_of_the_sdk(sdk: Sdk, request: ModelRequest) -> None:
    for model in ("gemini-3.8-flash", "gemini-2.5-flash"):
        require_valid(sdk, request, model)


def test_the_types_of_the_sdk_are_strict(sdk: Sdk) -> None:
    output = OutputSchema("o", {"type": "object", "properties": {}}, strict=True)
    require_valid(sdk, ModelRequest(items=[user_message("hi")], output=output), "gemini-3.8-flash")
    with pytest.raises(AssertionError, match="ValidationError"):
        sdk("validate", body={"contents": [{"role": "user", "parts": [{"txt": "hi"}]}]})


TURN = Turn(
    (
        Reasoning("Hm, the weather."),
        Text("Grüße. 😀"),
        Call("look", '{"at": "Zürich"}', "c1"),
        Call("look", "{}", "c2"),
    )
)


def asked(sdk: Sdk, op: str, turn: Turn, **more: Any) -> Any:
    """What the SDK reads of one response of the simulator."""

    async def ask() -> Any:
        async with ProviderSimulator([turn]) as simulator:
            url = simulator.base_url.removesuffix("/v1")
            request = {"model": "m", "contents": [USER], "config": {"tools": [TOOL]}, **more}
            return await asyncio.to_thread(sdk, op, url=url, **request)

    return asyncio.run(ask())


def parts_of(chunk: str) -> list[Json]:
    (candidate,) = json.loads(chunk)["candidates"]
    return candidate["content"].get("parts", [])


def test_the_sdk_reads_a_stream_of_the_simulator(sdk: Sdk) -> None:
    chunks = asked(sdk, "stream", TURN)
    parts = [part for chunk in chunks for part in parts_of(chunk)]
    thoughts = "".join(part["text"] for part in parts if part.get("thought"))
    texts = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    assert (thoughts, texts) == ("Hm, the weather.", "Grüße. 😀")
    assert calls == [
        {"name": "look", "args": {"at": "Zürich"}, "id": "c1"},
        {"name": "look", "args": {}, "id": "c2"},
    ]
    last = json.loads(chunks[-1])
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"]["thoughtsTokenCount"] == 3
    # And treadle reads the chunks of the SDK.
    events = asyncio.run(_events(chunks))
    assert "".join(e.delta for e in events if isinstance(e, ReasoningDelta)) == thoughts
    assert "".join(e.delta for e in events if isinstance(e, TextDelta)) == texts
    items = [event.item for event in events if isinstance(event, ItemFinished)]
    assert [i.call_id for i in items if isinstance(i, FunctionCall)] == ["c1", "c2"]


async def _events(chunks: list[str]) -> list[Any]:
    return [event async for event in typed_stream(chunks, "gemini")]


def test_the_sdk_reads_a_whole_response_of_the_simulator(sdk: Sdk) -> None:
    chunk = asked(sdk, "generate", TURN)
    kinds = [next(iter(part.keys() - {"thought", "thoughtSignature"})) for part in parts_of(chunk)]
    assert kinds == ["text", "text", "functionCall", "functionCall"]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (Turn((Text("half"),), finish="length"), "MAX_TOKENS"),
        (Turn((Text("half"),), finish="content_filter"), "SAFETY"),
        (Turn((Refusal("No."),)), "SAFETY"),
        (Turn((Call("look", "{", "c1"),)), "MALFORMED_FUNCTION_CALL"),
    ],
)
def test_the_sdk_reads_the_ends_of_the_simulator(sdk: Sdk, turn: Turn, reason: str) -> None:
    (*_, last) = asked(sdk, "stream", turn)
    assert json.loads(last)["candidates"][0]["finishReason"] == reason


def test_the_sdk_reads_the_errors_of_the_simulator(sdk: Sdk) -> None:
    with pytest.raises(AssertionError, match="must not be empty"):
        asked(sdk, "stream", TURN, contents=[{"role": "user", "parts": []}], config={})
