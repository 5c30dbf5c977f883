"""The names of providers in the GenAI conventions.

https://github.com/open-telemetry/semantic-conventions-genai (gen_ai.provider.name)
"""

_NAMES = {
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_AZURE = ".openai.azure.com"


def provider_name(provider: str) -> str:
    """Returns the name for the `provider` of a model, such as `bedrock:anthropic`."""
    if provider.endswith(_AZURE):
        return "azure.ai.openai"
    return _NAMES.get(provider.partition(":")[0], provider)
