"""The agents of the server as models, for clients that ask for a list of them."""

from typing import Any, Literal

from msgspec import Struct

from treadle.server.api_request import ApiRequest
from treadle.server.openai.errors import OPENAI_ERRORS
from treadle.server.operation import Operations

PREFIX = "/v1"
"""The beginning of the paths of the OpenAI protocols."""

MODELS = Operations("OpenAI models", prefix=PREFIX, errors=OPENAI_ERRORS)


class ModelInfo(Struct, frozen=True, kw_only=True):
    """An agent, named by `id`."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "treadle"


class ModelList(Struct, frozen=True):
    """The agents that answer users."""

    data: list[ModelInfo]
    object: Literal["list"] = "list"


@MODELS.add("GET", "/models", scope="read", answers={200: ModelList})
async def list_models(request: ApiRequest[Any, None]) -> ModelList:
    """Lists the agents as models."""
    return ModelList([ModelInfo(id=name) for name in request.services.served])


@MODELS.add("GET", "/models/{name}", scope="read", answers={200: ModelInfo})
async def read_model(request: ApiRequest[Any, None]) -> ModelInfo:
    """Returns an agent as a model."""
    return ModelInfo(id=request.services.runtime.agent(request.path["name"]).name)
