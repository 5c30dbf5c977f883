"""The window of the simulated model: longer requests get the error of each provider.

https://platform.openai.com/docs/guides/error-codes/api-errors
https://platform.claude.com/docs/en/build-with-claude/context-windows
https://ai.google.dev/gemini-api/docs/tokens
https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
"""

from typing import assert_never

from treadle.testing.simulator.envelope import BYTES_PER_TOKEN
from treadle.testing.simulator.rejection import Rejected
from treadle.testing.simulator.request import ProviderRequest

_CODE = "context_length_exceeded"


def require_window(request: ProviderRequest, window: int) -> None:
    """Raises `Rejected` for a request of more than `window` tokens, unless that is 0.

    A token is four bytes of the body, as in the usage that the simulator reports.
    """
    tokens = max(1, request.size // BYTES_PER_TOKEN)
    if not window or tokens <= window:
        return
    match request.format:
        case "responses":
            message = "Your input exceeds the context window of this model. Please adjust your "
            raise Rejected(400, f"{message}input and try again.", code=_CODE, param="input")
        case "chat":
            message = (
                f"This model's maximum context length is {window} tokens. However, your messages "
                f"resulted in {tokens} tokens. Please reduce the length of the messages."
            )
            raise Rejected(400, message, code=_CODE, param="messages")
        case "messages":
            raise Rejected(400, f"prompt is too long: {tokens} tokens > {window} maximum")
        case "gemini":
            message = f"The input token count ({tokens}) exceeds the maximum number of tokens "
            raise Rejected(400, f"{message}allowed ({window}).")
        case "converse":
            raise Rejected(400, "Input is too long for requested model.")
        case _ as unreachable:
            assert_never(unreachable)
