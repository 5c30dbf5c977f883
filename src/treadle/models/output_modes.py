"""Which models can be held to a JSON Schema, by their server and their name."""

import re

from treadle.domain.schema import OutputMode

# https://platform.openai.com/docs/guides/structured-outputs#supported-models: gpt-4o-2024-08-06
# and later; the older ones refuse `json_schema`.
_OLD_OPENAI = re.compile(r"gpt-(3\.5|4(-|$)|4o-2024-05-13)")
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs: 4.1 and later.
_OLD_ANTHROPIC = re.compile(r"claude-(instant|[123]|(sonnet|opus)-4(-0)?(-\d{8})?$)")
_WITHOUT_SCHEMAS = (
    # Only `json_object`: https://api-docs.deepseek.com/guides/json_mode
    "deepseek.com",
    # "Function calling with a response mime type: 'application/json' is unsupported".
    "googleapis.com",
)


def openai_output_mode(host: str, model: str) -> OutputMode:
    """Returns the output mode of a model behind one of OpenAI's APIs, at OpenAI or elsewhere."""
    if any(host == domain or host.endswith(f".{domain}") for domain in _WITHOUT_SCHEMAS):
        return "tool"
    return "tool" if _OLD_OPENAI.match(model) else "native"


def anthropic_output_mode(host: str, model: str) -> OutputMode:
    """Returns the output mode of a model behind the Messages API.

    Compatible servers know tools; few of them know the newer field for a schema.
    """
    is_new = not _OLD_ANTHROPIC.match(model)
    return "native" if host.endswith("anthropic.com") and is_new else "tool"
