"""Runs `google-genai` in an environment of its own: a request on each line of input, in JSON.

`validate` checks the body of a request with the SDK's own types, `stream` and `generate` ask a
server. The answer is a line of JSON: `{"ok": …}` or `{"error": "…"}`.
"""

import json
import sys

from google import genai
from google.genai import types


def validate(body):
    for content in body.pop("contents"):
        types.Content.model_validate(content)
    for tool in body.pop("tools", ()):
        types.Tool.model_validate(tool)
    shapes = {
        "systemInstruction": types.Content,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    for name, value in body.items():
        shapes[name].model_validate(value)


def stream(url, model, **request):
    with client(url) as sdk:
        chunks = sdk.models.generate_content_stream(model=model, **request)
        return [chunk.model_dump_json(by_alias=True, exclude_unset=True) for chunk in chunks]


def generate(url, model, **request):
    with client(url) as sdk:
        response = sdk.models.generate_content(model=model, **request)
    return response.model_dump_json(by_alias=True, exclude_unset=True)


def client(url):
    return genai.Client(api_key="secret", http_options={"base_url": url, "api_version": "v1beta"})


def main():
    operations = {"validate": validate, "stream": stream, "generate": generate}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": operations[request.pop("op")](**request)}
        except Exception as error:  # noqa: BLE001 - the answer contains it
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
