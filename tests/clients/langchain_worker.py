"""Talks to a server of treadle with LangChain: `python langchain_worker.py URL THREAD_ID`.

Prints what it got as JSON.
"""

import json
import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA"
    "60e6kgAAAABJRU5ErkJggg=="
)


class City(BaseModel):
    """A city."""

    name: str


@tool
def ask(of: str) -> str:
    """Asks."""
    return f"{of}!"


def main(url: str, thread_id: str) -> None:
    options = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    model = ChatOpenAI(model="helper", **options)
    got = {"text": model.invoke("Hi.").content}

    chunks = list(
        model.stream([SystemMessage("Be short."), HumanMessage("Hi.")], stream_usage=True)
    )
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    got["chunks"] = len(chunks)
    got["streamed"] = whole.content
    got["tokens"] = whole.usage_metadata["total_tokens"]

    messages = [HumanMessage("Ask.")]
    with_tools = model.bind_tools([ask])
    messages.append(with_tools.invoke(messages))
    calls = messages[-1].tool_calls
    got["calls"] = [(call["name"], call["args"]) for call in calls]
    messages += [ToolMessage(ask.invoke(call["args"]), tool_call_id=call["id"]) for call in calls]
    got["answered"] = with_tools.invoke(messages).content

    got["parsed"] = model.with_structured_output(City).invoke("Where?").name

    picture = {"type": "image_url", "image_url": {"url": PIXEL}}
    got["seen"] = model.invoke([HumanMessage([{"type": "text", "text": "Look."}, picture])]).content

    bound = ChatOpenAI(model="helper", default_headers={"X-Thread-Id": thread_id}, **options)
    got["bound"] = [bound.invoke("One.").content, bound.invoke("Two.").content]
    try:
        model.invoke("Fail.")
    except openai.APIError as error:
        got["error"] = str(error)
    print(json.dumps(got))


if __name__ == "__main__":
    main(*sys.argv[1:])
