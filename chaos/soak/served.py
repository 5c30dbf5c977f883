"""The agent that the server serves; its model is the simulator named by the environment."""

import os

from chaos.soak.server_process import MODEL_URL
from treadle import Agent
from treadle.models.openai import OpenAIResponses

SCENARIO = "sim:deltas=12,every=4"

agent = Agent(
    OpenAIResponses(SCENARIO, api_key="none", base_url=os.environ[MODEL_URL]), name="soak"
)
