"""Which models can be held to a JSON Schema, by their server and their name."""

import re

from treadle.domain.schema import OutputMode
from treadle.models.presets import preset_at
from treadle.models.wire.chat_dialects import host_of

# https://platform.openai.com/docs/guides/structured-outputs#supported-models: gpt-4o-2024-08-06
# and later; the older ones refuse `json_schema`.
_OLD_OPENAI = re.compile(r"gpt-(3\.5|4(-|$)|4o-2024-05-13)")
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs: 4.1 and later.
_OLD_ANTHROPIC = re.compile(r"claude-(instant|[123]|(sonnet|opus)-4(-0)?(-\d{8})?$)")


def openai_output_mode(base_url: str, model: str) -> OutputMode:
    """Returns the output mode of a model behind one of OpenAI's APIs, at OpenAI or elsewhere."""
    if host_of(base_url).endswith(".googleapis.com"):
        # "Function calling with a response mime type: 'application/json' is unsupported".
        return "tool"
    preset = preset_at(base_url)
    if preset is not None and preset.output_mode is not None:
        return preset.output_mode
    return "tool" if _OLD_OPENAI.match(model) else "native"


def anthropic_output_mode(host: str, model: str) -> OutputMode:
    """Returns the output mode of a model behind the Messages API.

    Compatible servers know tools; few of them know the newer field for a schema.
    """
    is_new = not _OLD_ANTHROPIC.match(model)
    return "native" if host.endswith("anthropic.com") and is_new else "tool"
