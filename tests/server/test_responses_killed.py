"""A stream of the Responses API over a kill -9 of its server, with the client of OpenAI."""

import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.server.test_process import TEXT, started
from tests.server.test_responses import events_of, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_kill_in_mid_text_and_a_restart(tmp_path: Path) -> None:
    read: list[Any] = []
    async with started(tmp_path, "--no-auth") as process:
        url = f"http://127.0.0.1:{process.port}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            stream = await api.responses.create(model="slow", input="Hi.", stream=True)
            # The stream ends without a last event, which is an error of the connection.
            with pytest.raises((openai.APIConnectionError, openai.APIError)):
                async for event in stream:
                    read.append(event)
                    if len(text_of(read)) > 30:
                        process.process.send_signal(signal.SIGKILL)
    assert TEXT.startswith(text_of(read))
    id = read[0].response.id
    async with (
        started(tmp_path, "--no-auth", port=process.port),
        AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api,
    ):
        with pytest.raises(openai.APIError, match="broke off") as error:
            await events_of(
                await api.responses.retrieve(
                    id, stream=True, starting_after=read[-1].sequence_number
                )
            )
        assert error.value.code == "response_interrupted"
        # What the model had begun is void: the answer has an item and numbers of its own.
        number = error.value.body["sequence_number"]  # type: ignore[index]
        rest = await events_of(await api.responses.retrieve(id, stream=True, starting_after=number))
        assert text_of(rest) == TEXT
        assert rest[-1].type == "response.completed"
        (item,) = rest[-1].response.output
        assert item.id not in {getattr(event, "item_id", "") for event in read}
        assert (await api.responses.retrieve(id)).output_text == TEXT
