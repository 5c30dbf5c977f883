"""What the models behind Bedrock's Converse API accept, by the maker in their ids.

https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AnySet
from typing import Literal

from msgspec import Struct

from treadle.domain.media import IMAGES, PDF
from treadle.domain.settings import ReasoningEffort
from treadle.models.version import REGION
from treadle.models.wire.reasoning import BUDGETS, ReasoningRule, words

Choice = Literal["named", "any", ""]
"""Whether a model can be forced to call one tool by name, any tool, or none."""

_REGION = re.compile(rf"global\.|{REGION}")
_NONE: AnySet[str] = frozenset()
_BESIDE: AnySet[str] = frozenset({"text", "image", "document", "audio"})


class ConverseFamily(Struct, frozen=True, kw_only=True):
    """What the models of one maker accept.

    - `choice`: "This model doesn't support the toolConfig.toolChoice.any field"; without it the
      choice is left to the model, and `tool_choice.ignored` reports a response without a call.
    - `beside_outputs`: the kinds of blocks that may follow the outputs of calls in a message
      ("Conversation blocks and tool result blocks cannot be provided in the same turn":
      langchain-ai/langchain-aws#141, pydantic/pydantic-ai#6081). With none, calls have to stand
      alone as well.
    - `in_outputs`: the media types that an output may contain; other files follow it.
    - `json_outputs`: an output is a JSON object instead of a text.
    - `has_status`: an output may be marked as that of a failed call.
    - `has_cache`: requests may have cache points ("You invoked an unsupported model or your request
      did not allow prompt caching": BerriAI/litellm#39210).
    - `reasoning`: how much to reason, in `additionalModelRequestFields`.
    """

    choice: Choice = ""
    beside_outputs: AnySet[str] = _BESIDE
    in_outputs: AnySet[str] = _NONE
    json_outputs: bool = False
    has_status: bool = False
    has_cache: bool = False
    reasoning: tuple[ReasoningRule, ...] = ()


_OPENAI = (
    ReasoningRule(models="gpt-oss", efforts=words(low="low", medium="medium", high="high")),
    # "Unknown parameter: 'reasoning_effort'" (anomalyco/opencode#48195); with a summary, the
    # reasoning can be read.
    ReasoningRule(
        efforts={
            effort: {
                "reasoning": {"effort": "low" if effort == "minimal" else effort, "summary": "auto"}
            }
            for effort in BUDGETS
        }
    ),
)
_NOVA_WORDS: Mapping[ReasoningEffort, str] = {
    "none": "",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
_NOVA = (
    # https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
    ReasoningRule(
        models="nova-2",
        efforts={
            effort: {
                "reasoningConfig": {"type": "enabled", "maxReasoningEffort": word}
                if word
                else {"type": "disabled"}
            }
            for effort, word in _NOVA_WORDS.items()
        },
    ),
)
_QWEN = (
    ReasoningRule(
        models="qwen3",
        efforts={
            effort: {"reasoning_config": "high" if effort in {"medium", "high", "xhigh"} else "low"}
            for effort in BUDGETS
            if effort != "none"
        },
    ),
)
_KIMI = (ReasoningRule(efforts=words(low="low", medium="medium", high="high")),)

FAMILIES = {
    # Its models think as those of the Messages API do, see `converse_request`.
    "anthropic": ConverseFamily(
        choice="named",
        beside_outputs=frozenset({"text", "image"}),
        in_outputs=IMAGES | {PDF},
        has_status=True,
        has_cache=True,
    ),
    # Its models cache by themselves, and some refuse cache points (earendil-works/pi#2053).
    "amazon": ConverseFamily(choice="named", in_outputs=IMAGES, has_status=True, reasoning=_NOVA),
    "openai": ConverseFamily(choice="named", reasoning=_OPENAI),
    "zai": ConverseFamily(choice="named"),
    "moonshot": ConverseFamily(choice="named", reasoning=_KIMI),
    "deepseek": ConverseFamily(choice="any"),
    "qwen": ConverseFamily(reasoning=_QWEN),
    "mistral": ConverseFamily(choice="any", beside_outputs=_NONE, json_outputs=True),
    "meta": ConverseFamily(beside_outputs=_NONE, in_outputs=IMAGES | {PDF}),
    "writer": ConverseFamily(beside_outputs=_NONE),
    "ai21": ConverseFamily(beside_outputs=_NONE),
    "cohere": ConverseFamily(beside_outputs=_NONE),
}
FAMILIES["moonshotai"] = FAMILIES["moonshot"]
OTHER = ConverseFamily()
"""Models of other makers, and those whose id does not tell the maker."""


def maker_of(model: str) -> str:
    """Returns the maker in the id of a model, of an inference profile, or in an ARN; "" if unknown.

    Ids are `anthropic.claude-sonnet-5`, `eu.anthropic.claude-sonnet-5`, and
    `arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-5`.
    """
    name = model.rpartition("/")[2]
    found = _REGION.match(name)
    maker, dot, _ = name[found.end() if found else 0 :].partition(".")
    return maker if dot and re.fullmatch(r"[a-z0-9]+", maker) else ""


def family_of(model: str) -> ConverseFamily:
    """Returns what a model accepts."""
    return FAMILIES.get(maker_of(model), OTHER)
