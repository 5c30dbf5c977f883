"""Talks to a server of treadle with LiteLLM: `python litellm_worker.py URL THREAD_ID`.

Prints what it got as JSON.
"""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it fetches prices from the web otherwise

import litellm
import openai

ASK = {
    "type": "function",
    "function": {
        "name": "ask",
        "description": "Asks.",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
    },
}


def main(url: str, thread_id: str) -> None:
    litellm.telemetry = False
    litellm.suppress_debug_info = True  # it prints advice to the standard output
    options = {
        "model": "openai/helper",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "num_retries": 0,
        "max_retries": 0,
    }

    def complete(messages: object, **more: object) -> object:
        return litellm.completion(messages=messages, **options, **more)

    hi = [{"role": "user", "content": "Hi."}]
    got = {"text": complete(hi).choices[0].message.content}

    chunks = list(complete(hi, stream=True, stream_options={"include_usage": True}))
    whole = litellm.stream_chunk_builder(chunks, messages=hi)
    got["chunks"] = len(chunks)
    got["streamed"] = whole.choices[0].message.content
    got["tokens"] = whole.usage.total_tokens

    said = complete(hi, tools=[ASK]).choices[0].message
    got["calls"] = [
        (one.function.name, json.loads(one.function.arguments)) for one in said.tool_calls
    ]
    outputs = [{"role": "tool", "tool_call_id": one.id, "content": "a!"} for one in said.tool_calls]
    answered = complete([*hi, said.model_dump(exclude_none=True), *outputs], tools=[ASK])
    got["answered"] = answered.choices[0].message.content

    got["bound"] = [
        complete(hi, extra_headers={"X-Thread-Id": thread_id}).choices[0].message.content
        for _ in range(2)
    ]
    try:
        complete(hi)
    except openai.APIError as error:
        got["error"] = str(error)
    print(json.dumps(got))


if __name__ == "__main__":
    main(*sys.argv[1:])
